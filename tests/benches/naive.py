"""The loop that most articles print: one endpoint after the other, the default context, five seconds each."""
import datetime
import socket
import ssl
import sys

names = open(sys.argv[1]).read().split()[: int(sys.argv[2])]
for name in names:
    host, port = name.rsplit(":", 1)
    context = ssl.create_default_context()
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        with context.wrap_socket(connection, server_hostname=host) as tls:
            not_after = ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])
    left = datetime.datetime.fromtimestamp(not_after) - datetime.datetime.now()
    if left.days < 14:
        print(f"{name} expires in {left.days} days")
