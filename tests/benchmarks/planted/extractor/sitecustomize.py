"""A defect, read by each job with this folder in PYTHONPATH: the answer is the first number of a worked answer, not the last."""

import sys

if "harness.jobs" in sys.orig_argv:
    from harness.metrics import numbers

    def find_number(answer, _ending):
        found = numbers._NUMBER.search(answer)
        return found.group() if found else None

    numbers.find_number = find_number
