"""Run folders: writes that are whole or not there, and the states of an output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dskd.errors import InputError
from harness.runs.identity import Fingerprint
from harness.runs.store import OutputFolder, UserFile, write_json_atomic, write_text_atomic

IDENTITY, OTHER = Fingerprint.of({"a": 1}), Fingerprint.of({"a": 2})


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_text_atomic(path, "old")

    def broken(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        write_text_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomic(tmp_path / "file", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_what_a_user_names_is_written_whole_and_through_links(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    link, new_link = tmp_path / "link", tmp_path / "new-link"
    link.symlink_to("target")
    new_link.symlink_to("folder/new")
    for path in (link, new_link, tmp_path / "other/folder/file"):
        UserFile("--out", path).write([{"a": 1}])
        assert path.read_text() == '{"a": 1}\n'
    assert link.is_symlink()
    assert new_link.is_symlink()
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_a_pipe_or_device_that_a_user_names_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    UserFile("--out", pipe).write([1])
    UserFile("--out", link).write([2])
    assert os.read(reader, 100) == b"1\n2\n"
    os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
    null = tmp_path / "null"  # a link, so that a failure of this test leaves the machine's own alone
    null.symlink_to(os.devnull)
    UserFile("--out", null).write([1])
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("folder", "--out: folder is a folder; name a file"),
        ("file/below/it", "--out file/below/it: .*/file is a file, not a folder; give another path"),
    ],
)
def test_what_a_user_names_and_cannot_be_written_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("")
    with pytest.raises(InputError, match=message):
        UserFile("--out", Path(path))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_a_write_to_what_a_user_named_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"--out: .*/file could not be written \(No space left on device\)"):
        UserFile("--out", tmp_path / "file").write([1])
    assert list(tmp_path.iterdir()) == []


def begun(path: Path) -> OutputFolder:
    folder = OutputFolder(path)
    folder.begin("train", "a title", IDENTITY)
    (path / "checkpoint").write_text("half")
    (path / "log.txt").write_text("said")
    return folder


def test_the_states_of_an_output(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    assert folder.state() == ("missing", None)
    folder = begun(tmp_path / "out")
    assert folder.state()[0] == "interrupted"
    folder.fail(1.0, "why")
    state, manifest = folder.state()
    assert state == "failed"
    assert manifest is not None
    assert manifest.error == "why"
    folder.begin("train", "a title", IDENTITY)
    folder.finish(2.5, {"steps": 3})
    state, manifest = folder.state()
    assert state == "done"
    assert manifest is not None
    assert (manifest.seconds, manifest.report, manifest.error) == (2.5, {"steps": 3}, None)
    (tmp_path / "out/manifest.json").write_text('{"kind": "tra')
    assert folder.state() == ("missing", None)


@pytest.mark.parametrize(
    ("identity", "fresh", "kept"), [(IDENTITY, False, True), (OTHER, False, False), (IDENTITY, True, False)]
)
def test_unfinished_work_is_kept_for_the_same_identity_alone(
    tmp_path: Path, identity: Fingerprint, fresh: bool, kept: bool
) -> None:
    folder = begun(tmp_path / "out")
    folder.begin("train", "a title", identity, fresh=fresh)
    assert (tmp_path / "out/checkpoint").exists() is kept
    assert (tmp_path / "out/log.txt").read_text() == "said"
    assert folder.state()[0] == "interrupted"


def test_finished_work_is_replaced_whole(tmp_path: Path) -> None:
    folder = begun(tmp_path / "out")
    folder.finish(1.0)
    folder.begin("train", "a title", IDENTITY)
    assert not (tmp_path / "out/checkpoint").exists()


def test_a_clearing_that_was_cut_off_is_taken_up_again(tmp_path: Path) -> None:
    begun(tmp_path / "out")
    (tmp_path / "out/manifest.json").unlink()
    OutputFolder(tmp_path / "out").begin("train", "a title", IDENTITY)
    assert not (tmp_path / "out/checkpoint").exists()


def test_a_folder_of_someone_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds files that this program did not make \(thesis.txt\)"):
        OutputFolder(tmp_path).begin("train", "a title", IDENTITY)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
