# outcome: killed exception memory
import sys

sys.setrecursionlimit(10**9)


class Deep:
    def __getattr__(self, name):
        return repr(getattr(self, name + "x"))


def add(a, b):
    return Deep().x
