"""One of the processes that prepare data together: `python -m dskd.data.preparation_worker DESCRIPTOR FOLDER RECIPE`.

It gets blocks through a connection, makes their parts in the folder, and answers each with None or with what went wrong.
"""

from __future__ import annotations

import gc
import pickle
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from dskd.data.blocks import Block
from dskd.data.prepared_part import Recipe, make_part
from dskd.processes import exit_with_parent


def main(descriptor: int, folder: Path, recipe_file: Path) -> None:
    """Make parts until the other end of the connection is closed."""
    exit_with_parent(descriptor=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the process that started this one
    recipe: Recipe = pickle.loads(recipe_file.read_bytes())
    gc.freeze()  # tokenizers and vocabularies stay
    with Connection(descriptor) as connection:
        while True:
            try:
                block = connection.recv()
            except EOFError:
                return
            connection.send(_made(recipe, block, folder))


def _made(recipe: Recipe, block: Block, folder: Path) -> Exception | None:
    try:
        make_part(recipe, block, folder)
    except Exception as error:  # it is raised where the block came from
        return error
    return None


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
