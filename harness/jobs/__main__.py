"""One job in its own process: `python -m harness.jobs SPEC.json`.

Exit codes: 0 done (or found done), 1 failed, 2 failed because of what the user gave.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import textwrap
import threading
import traceback
from pathlib import Path

from filelock import Timeout

from dskd.errors import InputError
from harness.jobs.context import JobContext, ProgressChannel
from harness.jobs.spec import JobSpec, OutputSpec
from harness.store import Store

PARENT_DESCRIPTOR = "HARNESS_PARENT_FD"


def main(spec_path: str) -> int:
    """Run the job of a specification file."""
    _die_with_parent()
    spec = JobSpec.model_validate_json(Path(spec_path).read_text(encoding="utf-8"))
    progress = ProgressChannel()
    store = Store(Path(spec.root))
    lock = store.lock(spec.folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("waiting: another run is doing this job", flush=True)
        progress.send(event="waiting")
        lock.acquire()
        # The other run has just made it, so `fresh` is satisfied as well.
        spec = spec.model_copy(update={"fresh": False})
    with lock:
        pending = [output for output in spec.outputs if spec.fresh or not _is_done(store, output)]
        if not pending:
            print("nothing to do: another run has done it", flush=True)
            return 0
        return _run(spec, store, pending, progress)


def _is_done(store: Store, output: OutputSpec) -> bool:
    folder = store.output(output.folder)
    state, manifest = folder.state()
    if state != "done" or manifest is None or manifest.identity.hash != output.identity.hash:
        return False
    return output.product is None or (folder.path / output.product).exists()


def _run(spec: JobSpec, store: Store, pending: list[OutputSpec], progress: ProgressChannel) -> int:
    try:
        for output in pending:
            store.output(output.folder).begin(spec.kind, spec.title, output.identity, fresh=spec.fresh)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    progress.send(event="started")
    job = JobContext(spec, pending, progress)
    try:
        importlib.import_module(spec.runner).run(job)
        if job.pending:
            raise RuntimeError(f"{spec.runner} ended without finishing {', '.join(o.folder for o in job.pending)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        job.fail(str(error))
        return 2
    except Exception as error:
        traceback.print_exc()
        job.fail(f"{type(error).__name__}: {_one_line(error)}")
        return 1
    return 0


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[0], 300, placeholder=" …") if lines else "no message"


def _die_with_parent() -> None:
    """End this process and its children when the run that started it dies, even by SIGKILL: its end of the pipe closes."""
    text = os.environ.pop(PARENT_DESCRIPTOR, None)
    if text is None:
        return
    descriptor = int(text)
    os.set_inheritable(descriptor, False)

    def watch() -> None:
        os.read(descriptor, 1)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
