"""`python -m harness.cli`, where the command `harness` is not on the path."""

from harness.cli import main

main(prog_name="harness")
