"""`python -m dskd.worker REQUEST.json`, as launchers start it; the code is in dskd.training.worker."""

import sys

from dskd.training.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
