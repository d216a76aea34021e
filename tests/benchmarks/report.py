"""What the benchmark scripts share: options, the table, and the file that `make bench` keeps."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import platform
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """An argument parser with `--json`."""
    made = argparse.ArgumentParser(
        description=description, epilog=f"Example: {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    return made


def with_device(options: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds `--device` and `--dtype` to the options of a benchmark that runs on a GPU too."""
    options.add_argument("--device", default="cpu", help="cpu, or cuda")
    options.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16"],
        help="of products; weights of what is trained stay float32",
    )
    return options


def autocast(chosen: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    """What a training in this dtype is in."""
    return torch.autocast(chosen.device, torch.bfloat16, enabled=chosen.dtype == "bfloat16")


def wait_for(device: str) -> None:
    """Wait until a GPU has done what it was given; a processor has."""
    if device != "cpu":
        torch.cuda.synchronize()


def publish(
    name: str,
    rows: list[dict[str, Any]],
    *,
    value: dict[str, float],
    bar: dict[str, str],
    holds: bool,
    shapes: str,
    dtype: str,
    file: Path | None,
) -> None:
    """Print the rows as a table with the verdict, and write all of it to `file`."""
    table = Table(title=f"{name}: {shapes}; {dtype}, {torch.get_num_threads()} thread(s)")
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_shown(cell) for cell in row.values()))
    console = Console(width=150)
    console.print(table)
    for key, text in bar.items():
        console.print(f"{key}: {_shown(value[key])} (bar: {text})")
    console.print(f"{name} {'holds' if holds else 'does not hold'}")
    if file is not None:
        result = {"name": name, "value": value, "bar": bar, "holds": holds, "shapes": shapes, "dtype": dtype}
        result |= {"threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0], "rows": rows}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")


def _shown(cell: Any) -> str:
    return f"{cell:,.4g}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)


def alternate(sides: dict[str, Callable[[], Any]], repeats: int, device: str = "cpu") -> dict[str, float]:
    """The median seconds of each side, taken in turns after one run to warm up, so that a busy moment meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(repeats + 1):
        for name, run in sides.items():
            wait_for(device)
            start = time.perf_counter()
            run()
            wait_for(device)
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _return_freed_memory() -> None:
    """Freed memory goes back to the system (glibc keeps some otherwise), so that resident memory is memory in use."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory(device: str) -> PeakMemory | PeakDeviceMemory:
    """Measures the memory that a block needs, of this process or of the GPU."""
    return PeakMemory() if device == "cpu" else PeakDeviceMemory()


class PeakDeviceMemory:
    """Memory of the GPU that torch has given out above what it had at the start, in bytes, as `PeakMemory`."""

    def __enter__(self) -> PeakDeviceMemory:
        gc.collect()
        self._start = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.peak = self.kept = 0
        return self

    def __exit__(self, *_: object) -> None:
        torch.cuda.synchronize()
        self.kept = torch.cuda.memory_allocated() - self._start
        self.peak = max(self.peak, torch.cuda.max_memory_allocated() - self._start)


class PeakMemory:
    """Resident memory of this process above its start, in bytes: `kept` at the end of the block, `peak` inside it."""

    def __enter__(self) -> PeakMemory:
        self._process = psutil.Process()
        _return_freed_memory()
        self._start = self._process.memory_info().rss
        self.peak = self.kept = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self.peak = max(self.peak, self._process.memory_info().rss - self._start)

    def __exit__(self, *_: object) -> None:
        _return_freed_memory()
        self.kept = self._process.memory_info().rss - self._start
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, self.kept)
