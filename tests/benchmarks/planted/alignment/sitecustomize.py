"""A defect, read by each job with this folder in PYTHONPATH: a student token's partner is the teacher token after the right one."""

import sys

if "harness.jobs" in sys.orig_argv:
    from dskd.tokenization import batch_alignment

    right = batch_alignment.align_many

    def align_many(teacher, student):
        aligned = right(teacher, student)
        return [((pairs[0][1:], pairs[1][:-1]), groups) for pairs, groups in aligned]

    batch_alignment.align_many = align_many
