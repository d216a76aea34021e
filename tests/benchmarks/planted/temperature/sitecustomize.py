"""A defect, read by each job with this folder in PYTHONPATH: logits are multiplied by the temperature, not divided by it."""

import sys

if "harness.jobs" in sys.orig_argv:
    from dskd.methods import base

    right = base.DivergenceOptions.distance

    def distance(self, name=None, temperature=None):
        return right(self, name, 1 / (temperature or self.temperature))

    base.DivergenceOptions.distance = distance
