"""What a way of isolation is: how the supervisor is started so that nothing outside is within its reach."""

from __future__ import annotations

import os
import sys
import sysconfig
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from harness.sandbox.program import Limits

INSIDE = Path(__file__).resolve().parents[1] / "inside"
# What these are called inside: the program's own folder, and that of the supervisor's scripts.
SCRATCH = "/scratch"
SCRIPTS = "/sandbox"
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/nix/store", "/gnu/store")
# -I but for its -E, which would ignore PYTHONHASHSEED; the environment is ours, with nothing else to ignore.
PYTHON_OPTIONS = ("-P", "-s", "-S", "-B")
# The names in a program's environment.
VARIABLES = ["PATH", "HOME", "TMPDIR", "LANG", "PYTHONHASHSEED"]


@dataclass(frozen=True)
class Launch:
    """How to start the supervisor of one program.

    `processes` is how many processes and threads the program may have by RLIMIT_NPROC; None where the isolation itself counts.
    """

    argv: list[str]
    environment: dict[str, str]
    folder: str = "/"
    processes: int | None = None


class Isolation(ABC):
    """One way to keep programs apart from the machine. The name is what a user chooses it by."""

    name: str
    # Whether it keeps programs from the network and from files outside their own folder.
    isolates = True

    @abstractmethod
    def missing(self) -> str | None:
        """Say what this machine lacks for it, as far as that shows without trying; None where nothing is."""

    @abstractmethod
    def launch(self, limits: Limits) -> AbstractContextManager[Launch]:
        """Give what to start; what belongs to this one program is gone when the context ends."""


def environment(folder: str) -> dict[str, str]:
    """The environment of a program, with `folder` its own; the supervisor drops all but these names."""
    # The last: a set's order, and with it a verdict, is the same in every run.
    return dict(zip(VARIABLES, (os.defpath, folder, folder, "C.UTF-8", "0"), strict=True))


def interpreter() -> str:
    """The Python that runs here, itself and not the link of a virtual environment to it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def visible() -> dict[str, str]:
    """The paths that an interpreter needs, and what they are called inside: its own and the system's, nothing of the user's."""
    own = map(os.path.realpath, (interpreter(), *_library_folders()))
    named = [*_SYSTEM, *own, *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    there = [Path(path) for path in dict.fromkeys(named) if path and Path(path).exists() and path != "/"]
    folders = {path for path in there if not path.is_symlink()}
    # Without what lies in another.
    return {str(path): str(path) for path in there if folders.isdisjoint(path.parents)} | {str(INSIDE): SCRIPTS}


def hidden() -> list[str]:
    """Folders of installed packages among them: not needed, and the data of a task may be in one."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    system = (f"/usr{local}/lib/{python}/dist-packages" for local in ("", "/local") for python in ("python3", version))
    libraries = map(os.path.realpath, _library_folders())
    own = (f"{folder}/{name}" for folder in libraries for name in ("site-packages", "dist-packages"))
    return [path for path in dict.fromkeys((*system, *own)) if Path(path).is_dir()]


def _library_folders() -> list[str]:
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix, "installed_base": sys.base_prefix}
    # The last: the interpreter's own shared library, and what conda puts beside it.
    return [*(sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")), f"{sys.base_prefix}/lib"]
