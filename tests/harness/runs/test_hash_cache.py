"""Remembered hashes: never a wrong one, whatever becomes of files, folders and processes; and none is needed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dskd.errors import InputError
from harness.runs import hash_cache
from harness.runs.hash_cache import MIN_BYTES, UNUSED_DAYS, VARIABLE, HashCache, cache_folder
from harness.runs.identity import FileHashes

LONG_AGO = 1_600_000_000_000_000_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the hashes of this test; nothing is there yet."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "hashes"


def write_large(path: Path, content: bytes = b"weights", mtime_ns: int = LONG_AGO) -> Path:
    """A file that is large enough to be remembered and was changed long ago."""
    path.write_bytes(content.ljust(MIN_BYTES, b"."))
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip_a_byte(path: Path) -> None:
    """Change a byte in place; size, times of change and inode stay as they were."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(MIN_BYTES // 2)
        stream.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


def entries(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.json"))


def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed from here on."""
    read: list[Path] = []

    def hash_of(stream: object, size: int) -> str:
        read.append(Path(stream.name))  # type: ignore[attr-defined]
        return real(stream, size)  # type: ignore[arg-type]

    from harness.runs import identity

    real = identity.hash_of
    monkeypatch.setattr(identity, "hash_of", hash_of)
    return read


def test_a_large_file_is_read_once_for_all_runs(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, small = write_large(tmp_path / "weights"), tmp_path / "config.json"
    small.write_text("{}")
    os.utime(small, ns=(LONG_AGO, LONG_AGO))
    assert FileHashes().file(path) == sha256(path)
    assert FileHashes().file(small) == sha256(small)
    assert len(entries(cache)) == 1
    read = bytes_read(monkeypatch)
    assert FileHashes().file(path) == sha256(path)
    assert read == []
    FileHashes().file(small)
    assert read == [small]


def test_a_link_and_its_target_are_one_file(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link = write_large(tmp_path / "weights"), tmp_path / "link"
    link.symlink_to(path)
    FileHashes().file(link)
    read = bytes_read(monkeypatch)
    FileHashes().file(path)
    assert (read, len(entries(cache))) == ([], 1)


@pytest.mark.parametrize("change", ["content", "size", "replaced"])
def test_a_changed_file_is_read_again(cache: Path, tmp_path: Path, change: str) -> None:
    path = write_large(tmp_path / "weights")
    before = FileHashes().file(path)
    if change == "content":
        write_large(path, b"others", LONG_AGO + 1)  # a nanosecond later
    elif change == "size":
        path.write_bytes(path.read_bytes() + b"!")
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    else:  # the same size, and the time of change put back: the inode is another one
        other = write_large(tmp_path / "other", b"others")
        other.replace(path)
    assert before != FileHashes().file(path) == sha256(path)
    assert len(entries(cache)) == 1  # in the place of the one before


def test_what_was_changed_a_moment_ago_is_not_remembered(cache: Path, tmp_path: Path) -> None:
    """Another change within the resolution of the file system's clock would not be seen."""
    path = write_large(tmp_path / "weights", mtime_ns=time.time_ns() - 500_000_000)
    FileHashes().file(path)
    assert entries(cache) == []
    of_tomorrow = write_large(tmp_path / "future", mtime_ns=time.time_ns() + 86_400_000_000_000)
    FileHashes().file(of_tomorrow)
    assert entries(cache) == []


def test_a_file_that_is_replaced_while_it_is_read_gets_its_own_hash(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.runs import identity

    path, other = write_large(tmp_path / "weights"), write_large(tmp_path / "other", b"others")
    expected, real = sha256(other), identity.hash_of

    def replaced_meanwhile(stream: object, size: int) -> str:
        if other.exists():
            other.replace(path)
        return real(stream, size)  # type: ignore[arg-type]

    monkeypatch.setattr(identity, "hash_of", replaced_meanwhile)
    assert FileHashes().file(path) == expected
    monkeypatch.undo()
    monkeypatch.setenv(VARIABLE, str(cache.parent))
    assert FileHashes().file(path) == expected == sha256(path)


def test_a_file_that_changes_all_the_time_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.runs import identity

    path, real = write_large(tmp_path / "weights"), identity.hash_of

    def appended_meanwhile(stream: object, size: int) -> str:
        with path.open("ab") as more:
            more.write(b"!")
        return real(stream, size)  # type: ignore[arg-type]

    monkeypatch.setattr(identity, "hash_of", appended_meanwhile)
    with pytest.raises(InputError, match="weights: changes while it is read; fix: wait until it is written"):
        FileHashes().file(path)
    assert entries(cache) == []


def test_verify_finds_a_flipped_byte_that_nothing_else_can_see(cache: Path, tmp_path: Path) -> None:
    path = write_large(tmp_path / "weights")
    before = FileHashes().file(path)
    assert FileHashes(verify=True).file(path) == before
    flip_a_byte(path)
    assert FileHashes().file(path) == before  # what is remembered
    with pytest.raises(InputError, match=rf"{path}: its bytes changed though its size and time did not") as found:
        FileHashes(verify=True).file(path)
    assert before[:12] in str(found.value)
    assert sha256(path)[:12] in str(found.value)
    # From now on nobody is given the hash of bytes that are known to be gone.
    with pytest.raises(InputError, match="its bytes changed"):
        FileHashes().file(path)
    with pytest.raises(InputError, match="its bytes changed"):
        FileHashes(verify=True).file(path)


@pytest.mark.parametrize("way", ["meant", "put back in place", "got again"])
def test_a_changed_file_can_be_used_again(cache: Path, tmp_path: Path, way: str) -> None:
    path = write_large(tmp_path / "weights")
    content, before = path.read_bytes(), FileHashes().file(path)
    flip_a_byte(path)
    with pytest.raises(InputError):
        FileHashes(verify=True).file(path)
    if way == "meant":
        os.utime(path, ns=(LONG_AGO, LONG_AGO + 1))
        assert FileHashes().file(path) == sha256(path) != before
    elif way == "put back in place":
        path.write_bytes(content)
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
        assert FileHashes(verify=True).file(path) == before
        assert FileHashes().file(path) == before
    else:
        write_large(tmp_path / "copy").replace(path)
        assert FileHashes().file(path) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: b"\xff\x00 nonsense",
        lambda text: b"[1]",
        lambda text: b"null",
        lambda text: b"[" * 100_000,
        lambda text: text.replace(b'"sha256": "', b'"sha256": "0')[: len(text)],
        lambda text: json.dumps({**json.loads(text), "sha256": "0" * 64}).encode(),
        lambda text: json.dumps({**json.loads(text), "more": 1}).encode(),
    ],
    ids=["empty", "torn", "binary", "list", "null", "nested", "shifted", "other hash", "other key"],
)
def test_a_damaged_entry_is_none(cache: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write_large(tmp_path / "weights")
    expected = FileHashes().file(path)
    (entry,) = entries(cache)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert FileHashes().file(path) == expected
    assert entry.read_bytes() == whole  # written again


def test_every_byte_of_an_entry_is_checked(cache: Path, tmp_path: Path) -> None:
    path = write_large(tmp_path / "weights")
    expected = FileHashes().file(path)
    (entry,) = entries(cache)
    whole = entry.read_bytes()
    for place in range(len(whole)):
        entry.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert FileHashes().file(path) == expected, place


def test_a_folder_that_cannot_be_used_is_told_once_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    paths = [write_large(tmp_path / name, name.encode()) for name in "abc"]
    hashes = FileHashes()
    with caplog.at_level(logging.WARNING):
        assert [hashes.file(path) for path in paths] == [sha256(path) for path in paths]
    assert len(caplog.records) == 1
    assert "hashes are not remembered" in caplog.text
    assert f"set {VARIABLE} to a folder" in caplog.text


def in_a_child(work: Callable[[], None]) -> None:
    """Run this in a process of its own, which may give up rights; it fails where the work does."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def without_rights() -> None:
    """Become a user who may read and not write what others own."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


def test_a_folder_that_can_only_be_read_is_read(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, unknown = write_large(tmp_path / "known"), write_large(tmp_path / "unknown", b"others")
    FileHashes().file(known)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    cache.chmod(0o555)
    read = bytes_read(monkeypatch)

    def work() -> None:
        without_rights()
        hashes = FileHashes()
        assert hashes.file(known) == sha256(known)
        assert hashes.file(unknown) == sha256(unknown)
        assert read == [unknown]

    in_a_child(work)
    assert len(entries(cache)) == 1
    cache.chmod(0o755)


def test_a_full_disk_fails_nothing(cache: Path, tmp_path: Path) -> None:
    path = write_large(tmp_path / "weights")

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))  # no file may grow beyond 16 bytes
        told: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("harness").addHandler(handler)
        assert FileHashes().file(path) == sha256(path)
        assert len(told) == 1
        assert "free some space" in told[0]

    in_a_child(work)
    assert [*cache.iterdir()] == []  # nothing half-written is left


HASH_ALL = """
import sys
from pathlib import Path
from harness.runs.identity import FileHashes
for line in range(int(sys.argv[2])):
    for path in sorted(Path(sys.argv[1]).iterdir()):
        print(path.name, FileHashes().file(path), flush=True)
"""


def hashing(folder: Path, times: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HASH_ALL, str(folder), str(times)], stdout=subprocess.PIPE, text=True
    )


def test_eight_processes_at_once_agree(cache: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(12):
        write_large(files / str(number), str(number).encode())
    expected = sorted(f"{path.name} {sha256(path)}" for path in files.iterdir())
    processes = [hashing(files, 3) for _ in range(8)]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert sorted(set(out.splitlines())) == expected
    assert len(entries(cache)) == 12
    assert all(path.suffix == ".json" for path in cache.iterdir())


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from harness.runs.hash_cache import FileKey, HashCache
cache, path = HashCache(), Path(sys.argv[1])
key = FileKey.of(path, path.stat())
print("ready", flush=True)
while True:
    cache.put(key, sys.argv[2], 2e9)
"""


def test_writers_that_are_killed_leave_the_old_entry_or_the_new(cache: Path, tmp_path: Path) -> None:
    path = write_large(tmp_path / "weights")
    expected = FileHashes().file(path)
    for number in range(12):
        command = [sys.executable, "-c", WRITE_FOR_EVER, str(path), expected]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(0.002 * number)
            writer.kill()
        assert FileHashes().file(path) == expected
        assert entries(cache) == [
            entry for entry in entries(cache) if json.loads(entry.read_text())["sha256"] == expected
        ]
    assert len(entries(cache)) == 1


def test_what_killed_writers_left_is_removed(cache: Path, tmp_path: Path) -> None:
    path = write_large(tmp_path / "weights")
    cache.mkdir(parents=True)
    (cache / ".old.json.abc").write_text("half")
    (cache / ".new.json.abc").write_text("half")  # of a writer that may still be at it
    os.utime(cache / ".old.json.abc", ns=(LONG_AGO, LONG_AGO))
    FileHashes().file(path)
    assert sorted(file.name for file in cache.glob(".*")) == [".new.json.abc"]


def test_the_cache_stays_small(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_cache, "MAX_ENTRIES", 5)
    for number in range(9):
        FileHashes().file(write_large(tmp_path / str(number), str(number).encode()))
    assert len(entries(cache)) == 5
    kept = {Path(json.loads(entry.read_text())["path"]).name for entry in entries(cache)}
    assert "8" in kept


def test_what_nobody_used_for_long_is_dropped(cache: Path, tmp_path: Path) -> None:
    used, unused = write_large(tmp_path / "used", b"one"), write_large(tmp_path / "unused", b"two")
    FileHashes().file(used)
    FileHashes().file(unused)
    long_ago = time.time() - (UNUSED_DAYS + 1) * 86400
    for entry in entries(cache):
        os.utime(entry, (long_ago, long_ago))
    FileHashes().file(used)  # a use
    FileHashes().file(write_large(tmp_path / "new", b"three"))
    assert {Path(json.loads(entry.read_text())["path"]).name for entry in entries(cache)} == {"used", "new"}


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "dskd-harness"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "dskd-harness"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # not allowed by the standard: ignored
    assert cache_folder() == tmp_path / ".cache" / "dskd-harness"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_without_any_folder_files_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_cache, "cache_folder", lambda: None)
    path = write_large(tmp_path / "weights")
    assert FileHashes(cache=HashCache()).file(path) == sha256(path)
    assert FileHashes(verify=True).file(path) == sha256(path)
