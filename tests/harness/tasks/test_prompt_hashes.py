"""What the tasks ask stays as it is: prompts change only together with the task's version.

`python -m pytest tests/harness/tasks/test_prompt_hashes.py --write-golden` writes prompt_hashes.json anew, for the tasks whose data is here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dskd.tokenization.prompt_templates import alpaca
from harness import tasks
from helpers.paths import ROOT

FILE = Path(__file__).with_name("prompt_hashes.json")
COMMITTED = json.loads(FILE.read_text())


def prompt_hashes(task: tasks.Task) -> dict[str, str]:
    """The task's version, and the sha256 over all ids and prompts: its own, and its instructions in Alpaca's template."""
    docs = task.docs()
    hashes = {"version": task.version, "prompts": digest([[doc["id"], task.prompt(doc)] for doc in docs])}
    if task.supports_chat:
        hashes["instructions"] = digest([[doc["id"], alpaca(task.instruction(doc))] for doc in docs])
    return hashes


def digest(asked: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def complaint(name: str, committed: dict[str, str] | None, now: dict[str, str]) -> str | None:
    """What is wrong with a task's prompts, in one line that says what to do; None where they are as committed."""
    write = f"run `python -m pytest {Path(__file__).relative_to(ROOT)} --write-golden` and commit {FILE.name}"
    if committed == now:
        return None
    if committed is None:
        return f"task {name}: its prompts have no committed hash; fix: {write}"
    if committed["version"] != now["version"]:
        return f"task {name}: version {now['version']} is new, {FILE.name} has {committed['version']}; fix: {write}"
    return (
        f"task {name}: its prompts changed and its version did not ({now['version']}); fix: undo the change, or raise the version "
        f"in task.py and README.md, say in the card's Changes what changed, then {write}"
    )


PINNED = [name for name in tasks.names() if all(data.sha256 for data in tasks.load(name).data_files)]


@pytest.mark.parametrize("name", PINNED)
def test_prompts_change_only_with_the_version(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, write_golden: bool
) -> None:
    task = tasks.load(name)
    if not task.data_is_here:
        monkeypatch.setenv("HARNESS_DATA", str(request.getfixturevalue("real_data")))
        if not task.data_is_here:
            pytest.skip(f"the data of {name} is not here")
    if write_golden:
        stored = {**json.loads(FILE.read_text()), name: prompt_hashes(task)}
        FILE.write_text(json.dumps({key: stored[key] for key in sorted(stored) if key in PINNED}, indent=2) + "\n")
        return
    found = complaint(name, COMMITTED.get(name), prompt_hashes(task))
    assert found is None, found


def test_no_hash_is_left_of_a_task_that_is_gone() -> None:
    assert sorted(COMMITTED) == PINNED  # of unpinned data the evaluation's identity has the hash


def test_a_changed_prompt_needs_a_new_version() -> None:
    task = tasks.load("small_math")
    now = prompt_hashes(task)
    assert complaint("small_math", now, now) is None
    for key in ("prompts", "instructions"):
        assert "raise the version" in complaint("small_math", {**now, key: "0" * 64}, now)
    assert "version 1 is new" in complaint(
        "small_math", {**now, "version": "0", "prompts": "0" * 64}, {**now, "version": "1"}
    )
    assert "no committed hash" in complaint("small_math", None, now)


def test_one_other_letter_in_one_prompt_is_another_hash() -> None:
    docs = [["0", "What is 1 + 1?"], ["1", "What is 1 + 2?"]]
    assert digest(docs) != digest([docs[0], ["1", "What is 1 + 3?"]])
