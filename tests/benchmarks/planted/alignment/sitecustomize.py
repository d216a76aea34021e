"""A defect, read by each job with this folder in PYTHONPATH: a student token's partner is the teacher token after the right one."""

import sys

if "harness.jobs" in sys.orig_argv:
    from dskd.tokenization import alignment

    right = alignment.align

    def align(teacher_spans, student_spans):
        teacher, student = right(teacher_spans, student_spans)
        return teacher[1:], student[:-1]

    alignment.align = align
