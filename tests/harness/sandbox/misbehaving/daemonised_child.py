# outcome: failed
# Its daemon has a session of its own and carries the marker among its arguments.
import os
import sys


def add(a, b):
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            code = f"import os, time; os.write({writer}, b'x'); time.sleep(600)"
            os.execv(sys.executable, [sys.executable, "-S", "-c", code, "MARKER"])
        os._exit(0)
    assert os.read(reader, 1) == b"x"
    return "a daemon runs"
