"""One of many processes that want the same lease: it notes in a journal what it does while it holds it, and goes on until it is killed.

Arguments: the folder of the lease, the journal, `here` or the name of a made-up machine, and hours by which its clock is wrong.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from harness.runs import leases
from harness.runs.ending import end_at_once


def main(folder: str, journal: str, machine: str, hours: str) -> None:
    right = time.time
    time.time = lambda: right() + 3600 * float(hours)
    if machine != "here":
        leases._boot = lambda: machine  # so that it tells by the file alone whether a holder is alive
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for turn in range(10**6):
        lease = leases.Lease(Path(folder), lambda _reason: end_at_once(), seconds=1.5)
        lease.acquire()
        for word in ("begin", "write", "write", "write", "end"):
            lease.check()
            os.write(descriptor, f"{os.getpid()}.{turn} {word}\n".encode())
            time.sleep(random.random() / 20)
        lease.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
