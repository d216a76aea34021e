"""A folder that `datasets.load_from_disk` opens, written table by table: memory holds one of them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from dskd.data.progress_bars import without_bars

SHARD_BYTES = 500 * 2**20  # as many as `datasets` puts into a file
_STATE = "state.json"


class DatasetFolder:
    """Writes tables of the same columns into a folder that must not exist; without `finish` it holds no dataset."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._features: Any = None
        self._shards: list[Path] = []
        self._file: pa.OSFile | None = None
        self._stream: pa.ipc.RecordBatchStreamWriter | None = None
        folder.mkdir(parents=True)

    def __enter__(self) -> DatasetFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def write(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        if self._features is None:
            import datasets

            self._features = datasets.Features.from_arrow_schema(table.schema)
        table = table.cast(self._features.arrow_schema)  # which holds what `datasets` knows of the columns
        if self._stream is None:
            self._shards.append(self._folder / f"{len(self._shards)}.arrow")
            self._file = pa.OSFile(str(self._shards[-1]), "wb")
            self._stream = pa.ipc.new_stream(self._file, table.schema)
        self._stream.write_table(table)
        assert self._file is not None
        if self._file.tell() >= SHARD_BYTES:
            self._close()

    def finish(self, fingerprint: str) -> None:
        """Make it a dataset. fingerprint: of its content; `datasets` names what it derives from a dataset by it."""
        import datasets

        self._close()
        names = [f"data-{k:05d}-of-{len(self._shards):05d}.arrow" for k in range(len(self._shards))]
        for shard, name in zip(self._shards, names, strict=True):
            shard.rename(self._folder / name)
        # The other files are those that this version of `datasets` writes for a dataset without rows.
        with tempfile.TemporaryDirectory(dir=self._folder) as empty, without_bars():
            rows: dict[str, list[Any]] = {name: [] for name in self._features}
            datasets.Dataset.from_dict(rows, features=self._features).save_to_disk(empty)
            state = json.loads((Path(empty) / _STATE).read_text(encoding="utf-8"))
            state |= {"_data_files": [{"filename": name} for name in names], "_fingerprint": fingerprint}
            (self._folder / _STATE).write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")
            (Path(empty) / "dataset_info.json").rename(self._folder / "dataset_info.json")

    def _close(self) -> None:
        if self._stream is None or self._file is None:
            return
        self._stream.close()
        self._file.close()
        self._stream = self._file = None
        with self._shards[-1].open("rb") as written:
            os.fsync(written.fileno())
