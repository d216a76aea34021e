"""Protocols: named presets in a matrix, in identities, in records, and one column each in tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from dskd.errors import InputError
from harness.cli import main
from harness.config.matrix_file import read_matrix
from harness.planning.expand import evaluated_task
from harness.planning.plan import make_plan
from harness.protocols import GREEDY, PROTOCOLS, DecodingProtocol
from harness.runs.records import RecordCell
from harness.steps.evaluation import Evaluate

Content = dict[str, Any]
DRAWN = {"task": "small_math", "protocol": "minillm-sampling", "limit": 2}


def test_minillm_s_protocol_is_that_of_the_published_tables() -> None:
    assert PROTOCOLS["minillm-sampling"].settings == {
        "name": "minillm-sampling",
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "seeds": [10, 20, 30, 40, 50],
        "samples": 1,
        "max_new_tokens": 256,
        "max_prompt_tokens": 256,
        "prompt_kept": "first",
        "no_repeat_ngram": 6,
    }
    assert PROTOCOLS["minillm-sampling"].num_samples == 5
    assert PROTOCOLS["pass@1-sampling"].num_samples >= 10
    assert PROTOCOLS["pass@k-sampling"].num_samples >= 100


def test_every_preset_stands_under_its_name_and_is_labelled_by_it() -> None:
    for name, protocol in PROTOCOLS.items():
        assert (protocol.name, protocol.label) == (name, name)
        assert DecodingProtocol.model_validate_json(protocol.model_dump_json()) == protocol


def test_a_label_names_every_setting_that_differs() -> None:
    protocol = PROTOCOLS["pass@k-sampling"].model_copy(update={"samples": 20, "seeds": (1, 2)})
    assert protocol.label == "pass@k-sampling, seeds=1 2, samples=20"
    assert protocol.num_samples == 40
    assert [protocol.seed_of(index, 7) for index in (0, 19, 20, 39)] == [1, 1, 2, 2]
    assert PROTOCOLS["pass@1-sampling"].seed_of(19, 7) == 7
    assert GREEDY.seed_of(0, 7) is None
    # Of a preset that this version does not have, as a record from elsewhere may name.
    assert DecodingProtocol(name="other", temperature=0.5).label == "other, temperature=0.5"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "x", "samples": 3}, "`samples` means nothing at temperature 0"),
        ({"name": "x", "seeds": (1,)}, "`seeds` means nothing at temperature 0"),
        ({"name": "greedy", "temperature": 1.0}, "greedy draws nothing"),
        ({"name": "x", "temperature": 1.0, "seeds": (1, 1)}, "the same seed stands twice"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: Content, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DecodingProtocol(**settings)


def test_one_task_under_two_protocols_is_two_evaluations(
    tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path
) -> None:
    tiny["tasks"] = {"small_math": {"limit": 2}, "drawn": DRAWN}
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run", only=["method=teacher"])
    job = plan.jobs["evaluate:teacher/teacher"]
    greedy, drawn = (status.output for status in job.outputs)
    assert greedy.folder == "cells/teacher/teacher/eval/small_math@v2"
    assert drawn.folder == "cells/teacher/teacher/eval/drawn@v2+minillm-sampling"
    assert greedy.cell is not None
    assert drawn.cell is not None
    assert [greedy.cell.task, greedy.cell.column, greedy.cell.protocol] == ["small_math", "small_math", GREEDY]
    assert [drawn.cell.task, drawn.cell.column] == ["small_math", "small_math [minillm-sampling]"]
    assert drawn.fingerprint.parts["protocol"]["seeds"] == [10, 20, 30, 40, 50]
    assert (greedy.fingerprint.parts["max_new_tokens"], drawn.fingerprint.parts["max_new_tokens"]) != (256, 256)
    assert drawn.fingerprint.parts["max_new_tokens"] == 256
    assert isinstance(job.step, Evaluate)
    assert [task.entry for task in job.step.tasks] == ["small_math", "drawn"]
    only = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run", only=["task=drawn", "method=teacher"])
    assert [status.output.folder for status in only.jobs["evaluate:teacher/teacher"].outputs] == [drawn.folder]


def test_a_setting_of_a_protocol_is_part_of_the_identity(
    tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path
) -> None:
    def identity(protocol: Content) -> Any:
        tiny["tasks"] = {"drawn": {**DRAWN, "protocol": protocol}}
        plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run", only=["method=teacher"])
        return plan.jobs["evaluate:teacher/teacher"].outputs[0].output.fingerprint

    plain = identity({"name": "minillm-sampling"})
    changes: list[Content] = [{"temperature": 0.7}, {"seeds": [10]}, {"no_repeat_ngram": 0}, {"prompt_kept": "last"}]
    changed = [identity({"name": "minillm-sampling", **change}) for change in changes]
    assert len({plain.hash, *(each.hash for each in changed)}) == 1 + len(changes)
    for each, change in zip(changed, changes, strict=True):
        assert each.parts["protocol"] == {**plain.parts["protocol"], **change}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**DRAWN, "protocol": "minilm-sampling"}, r"tasks\.drawn\.protocol: no protocol 'minilm-sampling'; did you mean"),
        ({**DRAWN, "protocol": {"temperature": 1}}, r"tasks\.drawn\.protocol: has no `name` of a protocol"),
        ({**DRAWN, "protocol": {"name": "greedy", "top_q": 1}}, r"tasks\.drawn\.protocol\.top_q: unknown key; did you mean"),
        ({**DRAWN, "protocol": {"name": "pass@1-sampling", "samples": 0}}, r"tasks\.drawn\.protocol\.samples: input should"),
        ({**DRAWN, "protocol": {"name": "greedy", "samples": 2}}, r"tasks\.drawn\.protocol: `samples` means nothing"),
        ({**DRAWN, "task": "small_meth"}, r"tasks\.drawn\.task: task small_meth: no such task; did you mean"),
        ({"task": "small_math"}, r"tasks\.drawn: the same task under the same protocol as tasks\.small_math"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(
    tiny: Content, write_matrix: Callable[[Any], Path], entry: Content, message: str
) -> None:
    tiny["tasks"] = {"small_math": {}, "drawn": entry}
    with pytest.raises(InputError, match=message):
        read_matrix(write_matrix(tiny))


def test_a_limit_of_tokens_is_part_of_the_protocol_where_it_is_not_the_task_s_own(
    tiny: Content, write_matrix: Callable[[Any], Path]
) -> None:
    protocol = {"name": "greedy", "max_new_tokens": 9}
    tiny["tasks"] = {
        "small_math": {},
        "short": {"task": "small_math", "max_new_tokens": 7},
        "other": {**DRAWN, "protocol": protocol},
    }
    matrix = read_matrix(write_matrix(tiny))
    assert matrix.protocol_of("small_math", 64) == GREEDY
    assert matrix.protocol_of("short", 64).label == "greedy, max_new_tokens=7"
    assert matrix.protocol_of("short", 7) == GREEDY
    assert matrix.protocol_of("other", 64).label == "greedy, max_new_tokens=9"


def test_a_budget_for_reasoning_is_part_of_the_protocol_and_of_the_identity_where_it_is_set(
    tiny: Content, write_matrix: Callable[[Any], Path]
) -> None:
    tiny["tasks"] = {
        "small_math": {},
        "long": {"task": "small_math", "max_reasoning_tokens": 500},
        "longer": {"task": "small_math", "protocol": {"name": "greedy", "max_reasoning_tokens": 900}},
        "closed": {"task": "small_math", "max_reasoning_tokens": 900, "reasoning_end": "close"},
        "cut": {"task": "small_math", "max_reasoning_tokens": 20, "reasoning_end": "cut"},
    }
    matrix = read_matrix(write_matrix(tiny))
    assert matrix.protocol_of("small_math", 64) == GREEDY
    assert matrix.protocol_of("long", 64).label == "greedy, max_reasoning_tokens=500"
    assert matrix.protocol_of("longer", 64).label == "greedy, max_reasoning_tokens=900"
    assert matrix.protocol_of("closed", 64).label == "greedy, max_reasoning_tokens=900, reasoning_end=close"
    assert matrix.protocol_of("cut", 64).label == "greedy, max_reasoning_tokens=20"
    limits = {"small_math": None, "long": 500, "longer": 900, "closed": 900, "cut": 20}
    for entry, tokens in limits.items():
        protocol = matrix.protocol_of(entry, 64)
        parts = evaluated_task(entry, "small_math", protocol, limit=None, max_new_tokens=None).identity_parts()
        assert parts["protocol"].get("max_reasoning_tokens") == tokens
        assert parts["max_new_tokens"] == 64
        # The limits were once added up: what was evaluated so is another thing. All other identities stay.
        assert parts.get("token_limits") == (None if tokens is None else 2)
        assert parts["protocol"].get("reasoning_end") == ("close" if entry == "closed" else None)
    tiny["tasks"] = {"small_math": {"max_reasoning_tokens": 0}}
    with pytest.raises(InputError, match=r"tasks\.small_math\.max_reasoning_tokens"):
        read_matrix(write_matrix(tiny))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"reasoning_end": "close"}, r"tasks\.small_math: `reasoning_end` means nothing without max_reasoning_tokens"),
        (
            {"protocol": {"name": "greedy", "reasoning_end": "close"}},
            r"tasks\.small_math\.protocol: `reasoning_end` means",
        ),
        (
            {"max_reasoning_tokens": 9, "reasoning_end": "stop"},
            r"tasks\.small_math\.reasoning_end: input should be 'cut' or",
        ),
    ],
)
def test_an_end_of_reasoning_needs_a_limit(
    tiny: Content, write_matrix: Callable[[Any], Path], entry: Content, message: str
) -> None:
    tiny["tasks"] = {"small_math": entry}
    with pytest.raises(InputError, match=message):
        read_matrix(write_matrix(tiny))


def test_an_end_of_reasoning_on_the_command_line_needs_a_limit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--reasoning-end: means nothing without a limit of reasoning; fix: "):
        GREEDY.with_reasoning(None, "close", "--reasoning-end")
    for command in (("evaluate", "--output-dir", "out"), ("generate", "--output", "out.jsonl")):
        asked = [*command, "--model", str(tmp_path), "--task", "small_math", "--reasoning-end", "close"]
        result = CliRunner().invoke(main, asked)
        assert result.exit_code == 2
        assert "--reasoning-end: means nothing without" in result.output
    closed = GREEDY.with_reasoning(9, "close")
    assert closed.with_reasoning(None, "cut") == GREEDY.with_reasoning(9)


def test_a_record_without_a_protocol_is_greedy_and_a_training_has_none() -> None:
    cell = {"teacher": "t", "student": "s", "method": "kd", "seed": 1}
    evaluated = RecordCell(**cell, task="dolly", task_version="1")
    assert (evaluated.protocol, evaluated.column) == (GREEDY, "dolly")
    training = RecordCell(**cell)
    assert (training.protocol, training.column) == (None, None)


def test_list_protocols_shows_every_setting() -> None:
    rows = json.loads(CliRunner().invoke(main, ["list", "protocols", "--json"]).stdout)
    assert [row["protocol"] for row in rows] == list(PROTOCOLS)
    assert set(rows[0]) == {"protocol", *DecodingProtocol.model_fields} - {"name"}
    assert "minillm-sampling" in CliRunner().invoke(main, ["list", "protocols"]).stdout
