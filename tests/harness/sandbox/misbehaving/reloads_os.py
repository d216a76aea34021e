# outcome: exception
import importlib
import os


def add(a, b):
    importlib.reload(os)
    os.rename("OUTSIDE/kept", "OUTSIDE/moved")
    return a + b
