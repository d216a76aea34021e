# outcome: memory timeout
# The latter where a busy machine does not let it take so much in its second.
import os
import time


def add(a, b):
    for _ in range(8):
        if os.fork() == 0:
            kept = bytearray(os.urandom(1 << 20)) * 300
            time.sleep(600)
    time.sleep(600)
