"""A function of Python and boto3: clients before the first event, then the inventory and a handshake."""
import os
import socket
import ssl
import urllib.request

import boto3

s3, sns = boto3.client("s3"), boto3.client("sns")
context = ssl.create_default_context()
urllib.request.urlopen(f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation/next").read()
try:
    s3.get_object(Bucket=os.environ["BUCKET"], Key="inventory.toml")
except s3.exceptions.NoSuchKey:
    pass
host, port = os.environ["DOMAINS"].rsplit(":", 1)
with socket.create_connection((host, int(port)), timeout=5) as connection:
    context.wrap_socket(connection, server_hostname=host)
