# outcome: exception
import socket


def add(a, b):
    socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
    return a + b
