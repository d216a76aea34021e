"""Which isolation is used, and the refusal where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dskd.errors import InputError
from harness.sandbox import run_programs, select
from harness.sandbox.isolation import LIMITS_ONLY, Isolation
from harness.sandbox.isolation.container import Container
from harness.sandbox.isolation.namespaces import Namespaces
from harness.sandbox.probes import ALWAYS, HELD, failures, self_test
from harness.sandbox.program import Program
from harness.sandbox.select import NAME_VARIABLE, sandbox, sandbox_used


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    select._sandbox.cache_clear()
    yield
    select._sandbox.cache_clear()


@pytest.fixture
def nothing_isolates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Namespaces that cannot be entered, as where the kernel refuses them; no bwrap."""
    (tmp_path / "enter.py").write_text("import sys\nsys.exit('unshare: Operation not permitted')")
    monkeypatch.setattr("harness.sandbox.isolation.namespaces.INSIDE", tmp_path)
    monkeypatch.delenv(NAME_VARIABLE, raising=False)
    monkeypatch.setattr("harness.sandbox.isolation.bubblewrap.shutil.which", lambda name: None)


def test_every_probe_holds_in_the_isolation_of_this_machine(isolation: Isolation) -> None:
    assert set(self_test(isolation).values()) == {HELD}


def test_limits_alone_hold_what_they_promise_and_the_self_test_sees_the_rest() -> None:
    results = self_test(LIMITS_ONLY)
    assert all(results[name] == HELD for name in ALWAYS)
    assert "127.0.0.1" in results["network"]
    assert results["files"] == "a program wrote outside its folder"
    assert "a file of the user" in results["secrets"]
    assert failures(LIMITS_ONLY, results) == {}
    assert {"network", "files", "secrets"} <= set(failures(Namespaces(), results))


@pytest.mark.usefixtures("nothing_isolates")
def test_where_nothing_isolates_it_is_refused_with_the_reason_and_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        run_programs([Program("assert True")])
    message = str(caught.value)
    assert "namespaces: " in message
    assert "unshare: Operation not permitted" in message
    assert "bubblewrap: bwrap is not installed" in message
    assert "fix: " in message
    assert "--sandbox none" in message
    assert "\n" not in message


@pytest.mark.usefixtures("nothing_isolates")
def test_nothing_is_generated_where_nothing_isolates(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import tasks

    with pytest.raises(InputError, match="cannot be isolated here"):
        tasks.load("small_code").check_permission(True)
    tasks.load("small_math").check_permission(False)  # runs no code


@pytest.mark.usefixtures("nothing_isolates")
def test_limits_alone_are_used_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME_VARIABLE, "none")
    assert sandbox().isolation is LIMITS_ONLY
    assert run_programs([Program("assert True")])[0].outcome == "passed"


def test_asking_for_limits_changes_nothing_where_something_isolates(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NAME_VARIABLE, "none")
    assert sandbox().isolation.isolates


def test_what_is_named_is_used_or_refused_and_never_replaced(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.sandbox.isolation.container.shutil.which", lambda name: None)
    monkeypatch.setenv(NAME_VARIABLE, "podman")
    with pytest.raises(InputError, match=r"\(podman: podman is not installed\)"):
        sandbox()
    monkeypatch.setenv(NAME_VARIABLE, "chroot")
    with pytest.raises(InputError, match="fix: one of auto, namespaces, bubblewrap, docker, podman, none"):
        sandbox()


def test_a_container_gets_no_network_no_privileges_and_no_place_to_write() -> None:
    from harness.sandbox import Limits

    with Container("true").launch(Limits()) as launch:
        line = " ".join(launch.argv)
    for part in (
        "--network none",
        "--read-only",
        "--cap-drop ALL",
        "no-new-privileges",
        "--user 65534:65534",
        "--pull never",
    ):
        assert part in line
    assert "HF_TOKEN" not in launch.environment


def test_records_say_what_isolated_and_what_the_self_test_found(isolation: Isolation) -> None:
    assert sandbox_used() is None  # nothing was run yet
    sandbox()
    used = sandbox_used()
    assert used is not None
    assert used.isolation == isolation.name
    assert set(used.probes.values()) == {HELD}
