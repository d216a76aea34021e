"""A training file of several blocks: the same bytes by any number of processes, also after kills; what is wrong is named by line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import psutil
import pytest

from dskd.data import blocks
from dskd.data.batch_encoding import Side
from dskd.data.blocks import blocks_of
from dskd.data.encoding import encode_whole, prepared_row
from dskd.data.preparation import PreparationReport, load_examples, prepare_dataset
from dskd.data.prepared_part import Recipe
from dskd.errors import InputError, TrainingFailed
from dskd.tokenization.prompt_templates import Template, set_template
from helpers.paths import PYTHONPATH, ROOT
from helpers.tiny_tokenizers import byte_level, sentencepiece

COUNT = 4500  # three blocks
LONG, SPECIAL = {17, 3000}, {2, 40, 900, 2500, 4000}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.jsonl, student, teacher and what they become in one process, `whole`."""
    folder = tmp_path_factory.mktemp("large")
    sentencepiece().save_pretrained(folder / "student")
    byte_level().save_pretrained(folder / "teacher")
    with (folder / "train.jsonl").open("w") as file:
        for k in range(COUNT):
            more = " fox" * 150 if k in LONG else "\x1b[31m</s>" if k in SPECIAL else ""
            file.write(json.dumps({"prompt": f"The quick fox {k}\n", "output": f"is {k * 7} apples{more}."}) + "\n")
            file.write("\n" if k % 1000 == 0 else "")
    _prepare(folder, folder / "whole", workers=1)
    return folder


def _prepare(world: Path, output: Path, **settings: object) -> PreparationReport:
    models = {"student": world / "student", "teacher": world / "teacher", "max_length": 120}
    return prepare_dataset(world / "train.jsonl", output, **{**models, **settings})  # type: ignore[arg-type]


def _files(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def _program(world: Path, output: Path, *, then: str) -> list[str]:
    """Prepares with two workers; `then` is done after each block. Not guarded: it is no module that a worker could import."""
    return [
        sys.executable, "-P", "-c",
        "import os, sys, time\nfrom pathlib import Path\nfrom dskd.data.preparation import prepare_dataset\n"
        f"def progress(done, total):\n    print(done, flush=True)\n    {then}\n"
        f"world = Path({str(world)!r})\n"
        f"prepare_dataset(world / 'train.jsonl', Path({str(output)!r}), student=world / 'student', teacher=world / 'teacher', "
        "max_length=120, workers=2, progress=progress)",
    ]  # fmt: skip


def _workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # which one that has just ended is, too
            if "dskd.data.preparation_worker" in child.cmdline():
                found.append(child)
    return found


def test_the_rows_are_those_of_the_examples_one_by_one(world: Path) -> None:
    sides = [Side.of(tokenizer) for tokenizer in (sentencepiece(), byte_level())]
    rows = []
    for k, example in enumerate(load_examples(world / "train.jsonl")):
        if k not in LONG | SPECIAL:
            rows.append(prepared_row(*(encode_whole(side.tokenizer, side.vocabulary, example) for side in sides)))
    data = datasets.load_from_disk(str(world / "whole"))
    assert list(data) == rows
    assert data.column_names == list(rows[0])
    report = json.loads((world / "whole" / "report.json").read_text())
    assert report["content"] == hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert (report["examples"], report["kept"], report["special_tokens"]) == (COUNT, len(rows), len(SPECIAL))
    assert report["aligned"] == sum(len(row["student_pairs"]) for row in rows)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_writes_the_same_bytes(world: Path, tmp_path: Path, workers: int) -> None:
    seen: list[tuple[int, int]] = []
    _prepare(world, tmp_path / "out", workers=workers, progress=lambda *now: seen.append(now))
    assert _files(tmp_path / "out") == _files(world / "whole")
    assert seen == [(2000, COUNT), (4000, COUNT), (COUNT, COUNT)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_templates_reach_the_workers(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    set_template(tokenizer, Template(kind="chat", system="Be brief."))
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"instruction": f"Add {k}", "input": "12" * (k % 2), "output": f"{k + 12}"} for k in range(2500)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for workers in (1, 2):
        output = tmp_path / f"by-{workers}"
        prepare_dataset(tmp_path / "train.jsonl", output, student=tmp_path / "model", workers=workers)
    assert _files(tmp_path / "by-1") == _files(tmp_path / "by-2")
    first = datasets.load_from_disk(str(tmp_path / "by-2"))[0]["student_ids"]
    assert tokenizer.decode(first) == "<|system|>Be brief.<|end|><|user|>Add 0<|end|><|assistant|>12<|end|>"


def test_a_worker_imports_no_torch() -> None:
    program = (
        "import sys, dskd.data.preparation_worker; print(*{'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_preparation_that_was_killed_goes_on_where_it_was(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = subprocess.Popen(
        _program(world, tmp_path / "out", then="time.sleep(60)"),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{PYTHONPATH}"},
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"2000\n"  # the first block is done, the others are under way
    workers = psutil.Process(killed.pid).children(recursive=True)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert len(workers) == 2
    psutil.wait_procs(workers, timeout=20)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    assert not (tmp_path / "out").exists()
    there = {file.name for file in (tmp_path / ".out.parts").glob("*.arrow")}
    assert there
    made = []
    part = Recipe.part
    monkeypatch.setattr(Recipe, "part", lambda recipe, block: made.append(recipe.name(block)) or part(recipe, block))
    _prepare(world, tmp_path / "out", workers=1)
    assert len(made) == 3 - len(there)
    assert not there & set(made)
    assert _files(tmp_path / "out") == _files(world / "whole")
    assert not (tmp_path / ".out.parts").exists()


def test_parts_of_other_settings_are_not_taken(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _prepare(world, tmp_path / "out", workers=1, progress=interrupt)
    assert len(list((tmp_path / ".out.parts").glob("*.arrow"))) == 1
    made = []
    part = Recipe.part
    monkeypatch.setattr(Recipe, "part", lambda recipe, block: made.append(block.number) or part(recipe, block))
    other = _prepare(world, tmp_path / "out", workers=1, max_length=119)
    assert made == [0, 1, 2]
    assert other.max_length == 119


def test_a_worker_that_is_killed_is_named_and_what_is_finished_is_kept(world: Path, tmp_path: Path) -> None:
    def kill_workers(done: int, total: int) -> None:
        for worker in _workers():
            worker.kill()

    (tmp_path / "long.jsonl").write_bytes((world / "train.jsonl").read_bytes() * 8)
    settings = {"student": world / "student", "max_length": 120}
    with pytest.raises(TrainingFailed, match=r"line \d+ .*SIGKILL.*fix: prepare with fewer workers"):
        prepare_dataset(tmp_path / "long.jsonl", tmp_path / "out", workers=2, progress=kill_workers, **settings)
    assert list((tmp_path / ".out.parts").glob("*.arrow"))
    assert not _workers()
    report = prepare_dataset(tmp_path / "long.jsonl", tmp_path / "out", workers=1, **settings)
    assert report.examples == 8 * COUNT


@pytest.mark.slow
def test_modules_in_the_working_directory_are_the_users_own(world: Path, tmp_path: Path) -> None:
    for name in ("random", "datasets", "queue", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is not for you')")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    prepared = subprocess.run(
        _program(world, Path("out"), then="pass"), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert prepared.returncode == 0, prepared.stderr
    assert prepared.stdout.split() == ["2000", "4000", str(COUNT)]
    assert _files(tmp_path / "out") == _files(world / "whole")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"}', "prompt and output must be strings"),
        ('{"prompt": \n', "not JSON"),
        ('{"prompt": "a", "output": "\\ud83d"}', "half of a surrogate pair"),
    ],
)
def test_a_bad_line_far_down_is_named(world: Path, tmp_path: Path, line: str, message: str, workers: int) -> None:
    lines = (world / "train.jsonl").read_text().splitlines()
    lines[3456] = line.strip()
    lines[4321] = "neither is this"
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message) as error:
        prepare_dataset(path, tmp_path / "out", student=world / "student", workers=workers)
    assert str(error.value).startswith(f"{path}:3457: ")
    assert not (tmp_path / "out").exists()
    # Once it is corrected, what was done before it is not done again.
    assert list((tmp_path / ".out.parts").glob("000000-*.arrow"))


def test_a_limit_takes_the_first_examples_and_reads_no_further(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text((world / "train.jsonl").read_text() + "this is no example\n")
    for limit, kept in ((1, 1), (2500, 2500 - 1 - 3), (COUNT, COUNT - 7)):
        report = prepare_dataset(
            path, tmp_path / "out", student=world / "student", teacher=world / "teacher", max_length=120, limit=limit
        )
        assert (report.examples, report.kept) == (limit, kept)
        rows = datasets.load_from_disk(str(tmp_path / "out"))
        assert len(rows) == kept
        assert rows[kept - 1]["student_ids"] == datasets.load_from_disk(str(world / "whole"))[kept - 1]["student_ids"]


def test_what_is_left_out_is_shown_by_line_and_as_plain_text(world: Path) -> None:
    report = PreparationReport.model_validate_json((world / "whole" / "report.json").read_text())
    lines = (world / "train.jsonl").read_text().splitlines()
    assert set(report.left_out) == {"too_long_student", "too_long_teacher", "special_tokens"}
    assert len(report.left_out["special_tokens"]) == 3  # of five
    for reason, numbers in (("special_tokens", [2, 40, 900]), ("too_long_teacher", [17, 3000])):
        for shown, k in zip(report.left_out[reason], numbers, strict=True):
            row = json.loads(lines[shown.line - 1])
            assert row["prompt"] == f"The quick fox {k}\n"
            assert len(shown.text) <= 80
            assert shown.text.isprintable()
            assert shown.text.startswith(f"The quick fox {k} is {k * 7} apples")
    assert "\\x1b[31m</s>" in report.left_out["special_tokens"][0].text


def test_a_report_without_examples_of_what_is_left_out_is_still_a_report(world: Path) -> None:
    report = json.loads((world / "whole" / "report.json").read_text())
    report.pop("left_out")
    assert PreparationReport.model_validate(report).left_out == {}


def test_nothing_stays_where_nothing_can_be_used(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"none of {COUNT} examples can be used .*raise max_length above 3"):
        _prepare(world, tmp_path / "out", max_length=3, workers=2)
    assert list(tmp_path.iterdir()) == []


def test_blocks_are_whole_lines_and_know_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "EXAMPLES", 3)
    monkeypatch.setattr(blocks, "BYTES", 40)
    texts = ["{}\n", "\n", "  \n", "{}\n", "{}\n", "x" * 50 + "\n", "{}\n", "\n", "\n", "{}"]
    path = tmp_path / "file"
    path.write_text("".join(texts))
    found = blocks_of(path)
    whole = path.read_bytes()
    assert [(block.number, block.line, block.examples) for block in found] == [(0, 1, 3), (1, 6, 1), (2, 7, 2)]
    assert b"".join(whole[block.offset : block.offset + block.length] for block in found) == whole
    assert blocks_of(path, 4) == found[:2]
    path.write_text("\n \n\n")
    with pytest.raises(InputError, match="the file is empty"):
        blocks_of(path)


def test_a_file_that_changes_while_it_is_read_is_refused(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes((world / "train.jsonl").read_bytes())

    def change(done: int, total: int) -> None:
        path.write_text(path.read_text().replace("apples", "apple", 3000))

    with pytest.raises(InputError, match=r"train\.jsonl: was changed while it was read; fix:"):
        prepare_dataset(path, tmp_path / "out", student=world / "student", workers=1, progress=change)
