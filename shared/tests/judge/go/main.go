// Judges a chain as Go does: main LEAF SENT ROOTS NAME UNIX_TIME, all of them PEM files.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	read := func(path string) []byte {
		bytes, _ := os.ReadFile(path)
		return bytes
	}
	block, _ := pem.Decode(read(os.Args[1]))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err == nil {
		roots, sent := x509.NewCertPool(), x509.NewCertPool()
		roots.AppendCertsFromPEM(read(os.Args[3]))
		sent.AppendCertsFromPEM(read(os.Args[2]))
		seconds, _ := strconv.ParseInt(os.Args[5], 10, 64)
		_, err = leaf.Verify(x509.VerifyOptions{
			DNSName:       os.Args[4],
			Intermediates: sent,
			Roots:         roots,
			CurrentTime:   time.Unix(seconds, 0),
		})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
