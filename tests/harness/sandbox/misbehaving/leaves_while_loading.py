# outcome: failed
import sys

sys.exit(0)
