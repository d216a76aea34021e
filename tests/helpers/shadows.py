"""Files in a working folder that are called like what our processes import."""

from __future__ import annotations

from pathlib import Path

_NAMES = (
    "random.py",
    "tempfile.py",
    "datasets.py",
    "tokenizers.py",
    "yaml.py",
    "dskd/__init__.py",
    "harness/__init__.py",
)


def write_shadows(folder: Path) -> Path:
    """A folder in which every process that imports from its working folder ends at once, and says so."""
    folder.mkdir()
    for name in _NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('raise SystemExit("a file of the working folder was imported")\n')
    return folder
