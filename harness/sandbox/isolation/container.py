"""A container of docker or podman for each program. Slow to start, and never chosen unless a user asks for it by name."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from harness.sandbox.isolation.base import INSIDE, PYTHON_OPTIONS, SCRATCH, SCRIPTS, Isolation, Launch, environment
from harness.sandbox.isolation.namespaces import OWN_PROCESSES
from harness.sandbox.program import Limits

IMAGE_VARIABLE = "HARNESS_SANDBOX_IMAGE"
IMAGE = "python:3.11-slim"
# What the programs of docker and podman need of the harness's environment: where their daemon and their settings are.
_PASSED_ON = ["PATH", "HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"]
_PASSED_ON += ["DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "CONTAINER_HOST"]


class Container(Isolation):
    """A fresh container without network, with a read-only file system."""

    def __init__(self, program: str) -> None:
        self.name = program

    def missing(self) -> str | None:
        """Say whether the program is installed, its daemon answers and the image is there; nothing is downloaded."""
        if shutil.which(self.name) is None:
            return f"{self.name} is not installed"
        asked = subprocess.run([self.name, "image", "inspect", _image()], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return None
        last_line = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"{last_line}; fix: start {self.name}, then `{self.name} pull {_image()}` (another image by {IMAGE_VARIABLE})"

    @contextmanager
    def launch(self, limits: Limits) -> Iterator[Launch]:
        """Give the command, and remove the container at the end if it has not gone by itself."""
        name = f"harness-{secrets.token_hex(8)}"
        argv = [self.name, "run", "--rm", "--interactive", "--name", name, "--pull", "never", "--network", "none"]
        argv += ["--read-only", "--tmpfs", f"{SCRATCH}:rw,nosuid,nodev,mode=1777,size={limits.scratch}"]
        argv += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        argv += ["--user", "65534:65534", "--workdir", SCRATCH]
        argv += ["--pids-limit", str(limits.processes + OWN_PROCESSES), "--oom-score-adj", "500"]
        argv += ["--memory", str(limits.memory + limits.scratch), "--memory-swap", str(limits.memory + limits.scratch)]
        argv += ["--mount", f"type=bind,source={INSIDE},target={SCRIPTS},readonly"]
        for key, value in environment(SCRATCH).items():
            argv += ["--env", f"{key}={value}"]
        argv += ["--entrypoint", "python", _image(), *PYTHON_OPTIONS, f"{SCRIPTS}/supervisor.py"]
        own = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        try:
            yield Launch(argv, own)
        finally:
            subprocess.run([self.name, "rm", "--force", name], capture_output=True, check=False, env=own)


def _image() -> str:
    return os.environ.get(IMAGE_VARIABLE) or IMAGE
