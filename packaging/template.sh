#!/usr/bin/env bash
# The template for one architecture, which takes the functions from probe.zip and renewer.zip beside it instead of building them.
#
#   template.sh ARCHITECTURE >template.yaml
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

awk -v architecture="$1" '
  # The build of each function becomes the place of its zip.
  /^    Metadata:$/ { held = $0; next }
  held != "" && /BuildMethod: rust-cargolambda/ { next }
  held != "" && /BuildProperties:/ { zip = $(NF - 1) ".zip"; held = ""; next }
  held != "" { print held; held = "" }
  zip != "" && /^    Properties:$/ { print; print "      CodeUri: " zip; zip = ""; next }

  # Globals.
  /^    CodeUri: \.$/ { next }

  # The only architecture that these zips run on.
  /^  Architecture:$/ { here = 1 }
  here && /^    Default:/ { print "    Default: " architecture; next }
  here && /^    AllowedValues:/ { print "    AllowedValues: [" architecture "]"; here = 0; next }
  { print }
' template.yaml
