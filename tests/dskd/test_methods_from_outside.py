"""Methods that do not ship: named by file or module and class, or found in the folders of DSKD_METHODS."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dskd import methods
from dskd.errors import InputError

FILE = """
from dskd.methods import Options, register
from dskd.methods.sft import SupervisedFineTuning


@register
class Own(SupervisedFineTuning):
    name = "own-sft"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    path = tmp_path / "own_sft.py"
    path.write_text(FILE)
    return path


def test_a_class_is_found_in_a_file_and_its_content_is_part_of_an_identity(file: Any) -> None:
    method = methods.get(f"{file}:Own")
    assert method.name == "own-sft"
    assert methods.get(f"{file}:Own") is method
    assert methods.own_code(f"{file}:Own") == hashlib.sha256(FILE.encode()).hexdigest()
    methods.base.METHODS.pop("own-sft", None)


def test_a_class_is_found_in_a_module_and_what_ships_has_no_code_of_its_own() -> None:
    name = "dskd.upstream.methods:DualSpaceV2ExactTokenAlignment"
    assert methods.get(name).name == "dskd-v2-eta"
    assert methods.own_code(name) is methods.own_code("kd") is None
    assert methods.get(name)({"upstream_parity": "kdflow"}).options.identity()["upstream_parity"] == "kdflow"
    assert methods.get("dskd-v2-eta")().options.identity()["upstream_parity"] == "none"
    assert methods.get("dskd-v1-cma-ga")().options.identity()["upstream_parity"] is False


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no/such.py:Own", "no such file; fix: correct the path"),
        ("no.such.module:Own", "No module named 'no'; fix: install its package"),
        ("dskd.upstream.methods:Nothing", "has no class 'Nothing'; fix: correct the name"),
        ("kdd", "'kdd' is not a method; fix: use one of"),
    ],
)
def test_what_is_not_there_is_one_line(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        methods.get(name)
    assert "\n" not in str(caught.value)


def test_files_in_the_folders_of_the_environment_are_methods_like_the_others(file: Any) -> None:
    code = (
        "from dskd import methods; assert methods.get('own-sft').name == 'own-sft'; assert methods.own_code('own-sft')"
    )
    environment = {**os.environ, "DSKD_METHODS": str(file.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_nothing_of_the_published_defects_is_loaded_unasked() -> None:
    code = "import sys, dskd.training.setup; sys.exit(any(name.startswith('dskd.upstream') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
