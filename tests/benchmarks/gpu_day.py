"""What no CPU can show, on a machine with a GPU, within a time limit: `make gpu`, or

    python tests/benchmarks/gpu_day.py --minutes 8 --output gpu_day.json

Each part is a process with a limit of its own; a part that fails, or runs out of time, stops no other. The most important come first.
The file is written anew after each part, so that what was measured is there whatever happens next. docs/gpu.md says what the machine
needs. `--device cpu --tiny` runs the same parts on small sizes where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "benchmarks"
_LEAST = 10.0  # seconds that are left, below which nothing is started any more
_SHOWN = 2000  # characters of what a part printed last
# What the parts import, by the name of its package where that is another.
NEEDED = {
    "torch": "torch", "transformers": "transformers", "accelerate": "accelerate", "peft": "peft", "datasets": "datasets",
    "tokenizers": "tokenizers", "safetensors": "safetensors", "pydantic": "pydantic", "lazy_loader": "lazy_loader",
    "numpy": "numpy", "scipy": "scipy", "yaml": "pyyaml", "psutil": "psutil", "rich": "rich", "pytest": "pytest",
    "filelock": "filelock", "huggingface_hub": "huggingface_hub",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part of the day: a script of this folder with its arguments, or pytest's; `seconds`: its limit."""

    name: str
    words: Sequence[str]
    seconds: float
    pytest: bool = False

    def command(self, result: Path) -> list[str]:
        """What runs it, its result written to a file."""
        if self.pytest:
            return [
                sys.executable,
                "-P",
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                f"--junitxml={result}",
                *self.words,
            ]
        script, *rest = self.words
        return [sys.executable, str(HERE / script), *rest, "--json", str(result)]

    def read(self, result: Path) -> Any:
        """What it found; None where it has not said it."""
        if not result.is_file() or not result.stat().st_size:
            return None
        return _tests(result) if self.pytest else json.loads(result.read_text(encoding="utf-8"))


def parts(device: str, *, tiny: bool) -> list[Part]:
    """All parts, the most important first."""
    on = ["--device", device]
    half = [*on, "--dtype", "bfloat16"]
    if tiny:
        small = [
            "--student",
            "tiny",
            "--teacher-hidden",
            "96",
            "--vocabulary",
            "997",
            "--batch",
            "2",
            "32",
            "--product",
            "128",
        ]
        return [
            Part("equal losses", ["equal_losses.py", *on, "--methods", "kd", "--steps", "4"], 300),
            Part("steps", ["steps_at_size.py", *half, *small, "--repeats", "1"], 300),
            Part("P13", ["p13_step.py", *half, "--vocabulary", "997", "--student", "64", "1", "--teacher", "128", "1",
                         "--batch", "2", "32", "--repeats", "1"], 300),
            Part("P1", ["p1_fused_loss.py", *half, "--vocabulary", "997", "--tokens", "64", "128", "--compared-tokens", "64",
                        "--hidden", "32", "48", "--repeats", "1"], 300),
            Part("P5", ["p5_teacher_signal.py", *on, "--examples", "8", "--batch-size", "4", "--teacher-hidden", "64",
                        "--student-hidden", "32"], 300),
            Part("tests", ["-mgpu", str(ROOT / "tests/dskd/modeling/test_projectors.py")], 300, pytest=True),
        ]  # fmt: skip
    sizes = ["steps_at_size.py", *half]
    return [
        Part("equal losses", ["equal_losses.py", *on], 60),
        Part("steps 0.5B, 7B", [*sizes, "--compiled", "sft", "dskd-v2-eta"], 150),
        Part("P13", ["p13_step.py", *half, "--vocabulary", "151936", "--student", "896", "24", "--teacher", "3584", "4",
                     "--batch", "8", "512"], 60),
        Part("P1", ["p1_fused_loss.py", *half, "--vocabulary", "151936", "--hidden", "896", "3584"], 60),
        Part("P5", ["p5_teacher_signal.py", *on, "--examples", "256", "--teacher-hidden", "1024", "--student-hidden", "512"], 60),
        Part("tests", ["-mgpu", str(ROOT / "tests/dskd"), str(ROOT / "tests/harness")], 200, pytest=True),
        Part("steps 0.6B, 8B", [*sizes, "--student", "qwen3-0.6b", "--teacher-hidden", "4096", "--methods", "dskd-v2-eta"], 60),
        Part("steps 0.6B, 4B", [*sizes, "--student", "qwen3-0.6b", "--teacher-hidden", "2560", "--methods", "dskd-v2-eta"], 60),
    ]  # fmt: skip


def run(part: Part, seconds: float) -> dict[str, Any]:
    """One part: its result, or in `error` why there is none. `seconds`: what is left for it."""
    limit = min(part.seconds, seconds)
    if limit < _LEAST:
        return {"name": part.name, "ok": False, "error": "not run: no time is left"}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        result = Path(folder) / "result"
        process = subprocess.Popen(
            part.command(result),
            cwd=ROOT,
            env=_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
            process.wait()
        log.seek(0)
        printed = log.read().decode("utf-8", errors="replace").strip()[-_SHOWN:]
        found = part.read(result) if code is not None else None
    about = {"name": part.name, "seconds": round(time.monotonic() - started, 1), "ok": code == 0 and found is not None}
    if found is not None:
        about["result"] = found
    if not about["ok"]:
        last = printed.splitlines()[-1].strip() if printed else "it printed nothing"
        about["error"] = f"ran out of its {limit:.0f} s" if code is None else f"exit code {code}: {last}"
        about["printed"] = printed
    return about


def machine(device: str) -> dict[str, Any]:
    """What the parts run on, and which packages they would miss."""
    asked = (
        "import json, torch; p = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None; "
        "print(json.dumps({'gpu': p and p.name, 'gpu_memory': p and p.total_memory, 'gpus': torch.cuda.device_count(), "
        "'cuda': torch.version.cuda}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=False, env=_environment()
    )
    versions = {package: _version(package) for package in NEEDED.values()}
    return {
        "device": device,
        **(json.loads(answer.stdout) if answer.returncode == 0 else {"error": answer.stderr.strip()[-_SHOWN:]}),
        "python": sys.version.split()[0],
        "versions": versions,
        "missing": sorted(package for module, package in NEEDED.items() if find_spec(module) is None),
    }


def _tests(result: Path) -> dict[str, Any]:
    """How many tests passed, and which failed, of pytest's JUnit file."""
    suite = ElementTree.parse(result).getroot().find("testsuite")
    assert suite is not None
    count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}::{case.get('name')}: {(bad.get('message') or '').splitlines()[0][:300]}"
        for case in suite.iter("testcase")
        for bad in (*case.findall("failure"), *case.findall("error"))
    ]
    return {**count, "failed": failed}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _environment() -> dict[str, str]:
    path = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; 1 where one has failed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    options.add_argument(
        "--output", type=Path, default=Path("gpu_day.json"), metavar="FILE", help="where the results go"
    )
    options.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options.add_argument("--tiny", action="store_true", help="small sizes, to try it out")
    options.add_argument("--parts", nargs="+", metavar="NAME", help="only these")
    chosen = options.parse_args(arguments)
    end = time.monotonic() + 60 * chosen.minutes
    every = parts(chosen.device, tiny=chosen.tiny)
    if unknown := set(chosen.parts or ()) - {part.name for part in every}:
        options.error(f"--parts {' '.join(sorted(unknown))}: there are {', '.join(part.name for part in every)}")
    day: dict[str, Any] = {"machine": machine(chosen.device), "parts": []}
    print(json.dumps(day["machine"], indent=1), flush=True)
    for part in every:
        if chosen.parts is None or part.name in chosen.parts:
            done = run(part, end - time.monotonic())
            day["parts"].append(done)
            said = "ok" if done["ok"] else done["error"]
            print(f"{part.name}: {said} ({done.get('seconds', 0)} s)", flush=True)
            chosen.output.write_text(json.dumps(day, indent=1) + "\n", encoding="utf-8")
    return 0 if all(part["ok"] for part in day["parts"]) else 1


if __name__ == "__main__":
    sys.exit(main())
