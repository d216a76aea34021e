# outcome: failed
import threading


def forever():
    while True:
        pass


def add(a, b):
    for _ in range(4):
        threading.Thread(target=forever).start()
    return None
