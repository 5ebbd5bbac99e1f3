"""What processes that ended have left: whole clips, begun ones, and nothing else stays."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from proxy.delivery import aftermath
from proxy.delivery.kept import Kept
from proxy.delivery.leftovers import Leftovers, find_leftovers, forget, forget_clip, id_of
from proxy.records import BodyHead, ClipFacts
from proxy.storage import spool_file
from proxy.storage.disk_cache import Reservation
from proxy.storage.facts_file import Growth, write_facts

HEAD = BodyHead(start=0, stop=10, total=10, validator='"tag"')


def facts_of(name: str, length: int) -> ClipFacts:
    return ClipFacts(
        request_id=name.partition(".")[0],
        length=length,
        etag="e" * 32,
        last_modified=datetime(2026, 1, 1, tzinfo=UTC),
    )


def keep(folder: Path, name: str, data: bytes, *, sha256: str | None = None, age: int = 0) -> Path:
    """Write a kept clip as a process leaves it; `name` is `<request_id>.<source>`."""
    path = folder / f"{name}.part"
    path.write_bytes(data)
    os.utime(path, (1000 - age, 1000 - age))
    write_facts(
        path.with_suffix(".json"),
        facts_of(name, len(data)),
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
        fal_url="https://fal.media/files/clip.mp4",
    )
    return path


def begin(folder: Path, name: str, data: bytes, *, length: int = 10, boot: str = "") -> Path:
    """Write a part of a clip as a process leaves it that is killed during a fill."""
    path = folder / f"{name}.part"
    path.write_bytes(data)
    growth = Growth(inode=path.stat().st_ino, boot=boot or spool_file.boot_id(), head=HEAD)
    write_facts(path.with_suffix(".json"), facts_of(name, length), growth=growth)
    return path


def close(left: Leftovers) -> list[str]:
    for found in left.whole:
        os.close(found.fd)
    return sorted(found.facts.request_id for found in left.whole)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_clip_is_found_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    path = keep(tmp_path, "a.1", b"bytes")
    left = find_leftovers(tmp_path)
    [found] = left.whole
    assert (found.path, found.facts.length, found.fal_url) == (
        path,
        5,
        "https://fal.media/files/clip.mp4",
    )
    assert os.pread(found.fd, 10, 0) == b"bytes"
    assert (left.begun, left.useless) == ([], [])
    assert close(left) == ["a"]


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    assert find_leftovers(tmp_path / "spool").whole == []
    assert (tmp_path / "spool").is_dir()


def test_what_was_begun_is_left_to_whoever_goes_on_with_it(tmp_path: Path) -> None:
    path = begin(tmp_path, "a.1", b"12345")
    before = path.stat()
    left = find_leftovers(tmp_path)
    assert (left.whole, left.begun, left.useless) == ([], [path], [])
    assert (path.stat().st_ino, path.read_bytes()) == (before.st_ino, b"12345")
    forget(left.begun)
    assert names(tmp_path) == ["a.1.json", "a.1.part"]
    fd = spool_file.lock_existing(path)
    assert fd is not None
    os.close(fd)


@pytest.mark.parametrize("wrong", ["boot", "inode", "length", "empty", "age"])
def test_what_proves_nothing_is_of_no_use(tmp_path: Path, wrong: str) -> None:
    """After a loss of power a file may be as long as it was, and hold something else."""
    if wrong == "boot":
        path = begin(tmp_path, "a.1", b"12345", boot="before the power was lost")
    elif wrong == "length":
        path = begin(tmp_path, "a.1", b"12345", length=4)
    elif wrong == "empty":
        path = begin(tmp_path, "a.1", b"")
    else:
        path = begin(tmp_path, "a.1", b"12345")
    if wrong == "inode":
        path.replace(tmp_path / "held")
        path.write_bytes(b"12345")
    if wrong == "age":
        os.utime(path, (time.time() - 7200,) * 2)
    left = find_leftovers(tmp_path)
    assert (left.begun, left.useless) == ([], [path])
    assert path.read_bytes() == b""
    forget(left.useless)
    assert not path.exists()


def test_what_changed_on_the_disk_is_emptied_and_named_until_it_is_forgotten(
    tmp_path: Path,
) -> None:
    """Peers 20 (pulpcore#5012): a copy that is no longer what was verified is of no use."""
    keep(tmp_path, "flipped.1", b"bytes").write_bytes(b"bytez")
    keep(tmp_path, "longer.1", b"bytes").write_bytes(b"bytes and more")
    os.truncate(keep(tmp_path, "shorter.1", b"bytes"), 2)
    keep(tmp_path, "good.1", b"bytes")
    (tmp_path / "unfinished.1.part").write_bytes(b"by")
    for name in ("alone.1.json", "alone.1.json.tmp"):
        (tmp_path / name).write_bytes(b"{}")
        os.utime(tmp_path / name, (1000, 1000))
    left = find_leftovers(tmp_path)
    assert close(left) == ["good"]
    useless = ["flipped", "longer", "shorter", "unfinished"]
    assert sorted(map(id_of, left.useless)) == useless
    assert sum(path.stat().st_size for path in left.useless) == 0
    again = find_leftovers(tmp_path)  # by the next process, should this one die
    assert sorted(map(id_of, again.useless)) == useless
    close(again)
    forget(left.useless)
    assert names(tmp_path) == ["good.1.json", "good.1.part"]


def test_who_reads_what_is_of_no_use_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.1.part"
    path.write_bytes(b"12345")
    with path.open("rb") as reader:
        find_leftovers(tmp_path)
        assert path.stat().st_size == 0
        assert reader.read() == b"12345"


def test_what_is_about_to_be_said_of_a_clip_stays(tmp_path: Path) -> None:
    for name in ("new.1.json", "new.1.json.tmp"):
        (tmp_path / name).write_bytes(b"{}")
    find_leftovers(tmp_path)
    assert names(tmp_path) == ["new.1.json", "new.1.json.tmp"]


def test_what_was_written_to_just_now_is_left_to_those_who_follow_it(tmp_path: Path) -> None:
    path = begin(tmp_path, "a.1", b"12345")
    assert find_leftovers(tmp_path, quiet_for=60).begun == []
    os.utime(path, (time.time() - 61,) * 2)
    assert find_leftovers(tmp_path, quiet_for=60).begun == [path]


def test_an_object_of_the_bucket_whose_spool_name_was_left_behind_keeps_its_bytes(
    tmp_path: Path,
) -> None:
    """A process that dies while it clears away leaves a second name of the bucket's own file."""
    path = keep(tmp_path, "a.1", b"bytes")
    committed = tmp_path / "object"
    os.link(path, committed)
    path.with_suffix(".json").unlink()
    left = find_leftovers(tmp_path)
    assert left.useless == [path]
    assert (path.read_bytes(), committed.read_bytes()) == (b"", b"bytes")
    assert names(tmp_path) == ["a.1.part", "object"]


def test_clearing_away_leaves_no_moment_in_which_a_file_is_taken_for_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep(tmp_path, "a.1", b"bytes")
    [found] = find_leftovers(tmp_path).whole
    left: list[list[str]] = []
    unlink = Path.unlink

    def watched(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        left.append(names(tmp_path))

    monkeypatch.setattr(Path, "unlink", watched)
    Kept.from_disk(found, Mock(spec=Reservation)).delete()
    assert left == [[path.with_suffix(".json").name], []]
    os.close(found.fd)


def test_clearing_away_does_not_touch_a_new_file_of_the_same_name(tmp_path: Path) -> None:
    path = keep(tmp_path, "a.1", b"bytes")
    [found] = find_leftovers(tmp_path).whole
    path.rename(tmp_path / "its last place")
    begin(tmp_path, "a.1", b"12345")
    Kept.from_disk(found, Mock(spec=Reservation)).delete()
    assert names(tmp_path) == ["a.1.json", "a.1.part", "its last place"]
    os.close(found.fd)


def test_what_a_process_left_that_died_while_it_emptied_a_file_is_removed(tmp_path: Path) -> None:
    empty = tmp_path / "a.1.part.empty"
    empty.touch()
    os.utime(empty, (1000, 1000))
    assert find_leftovers(tmp_path).useless == []
    assert names(tmp_path) == []


def test_what_is_being_filled_anew_is_not_forgotten(tmp_path: Path) -> None:
    for name in ("begun", "growing"):
        (tmp_path / f"{name}.1.part").write_bytes(b"by")
    useless = find_leftovers(tmp_path).useless
    (tmp_path / "growing.1.part").write_bytes(b"anew")
    with (tmp_path / "begun.1.part").open("r+b") as begun:
        fcntl.flock(begun, fcntl.LOCK_EX)
        forget(useless)
    assert names(tmp_path) == ["begun.1.part", "growing.1.part"]


def test_what_another_process_has_locked_is_left_alone(tmp_path: Path) -> None:
    keep(tmp_path, "kept.1", b"bytes")
    (tmp_path / "filling.1.part").write_bytes(b"by")
    held = [os.open(tmp_path / name, os.O_RDWR) for name in ("kept.1.part", "filling.1.part")]
    for fd in held:
        fcntl.flock(fd, fcntl.LOCK_EX)
    left = find_leftovers(tmp_path)
    assert (left.whole, left.begun, left.useless) == ([], [], [])
    forget_clip(tmp_path, "kept")
    assert names(tmp_path) == ["filling.1.part", "kept.1.json", "kept.1.part"]
    for fd in held:
        os.close(fd)
    assert close(find_leftovers(tmp_path)) == ["kept"]


def test_a_found_clip_is_locked_until_it_is_let_go(tmp_path: Path) -> None:
    keep(tmp_path, "a.1", b"bytes")
    first = find_leftovers(tmp_path)
    assert find_leftovers(tmp_path).whole == []
    assert close(first) == ["a"]
    assert close(find_leftovers(tmp_path)) == ["a"]


def test_of_two_clips_of_one_id_the_newer_one_is_kept(tmp_path: Path) -> None:
    keep(tmp_path, "a.1", b"old", age=60)
    keep(tmp_path, "a.2", b"new one")
    left = find_leftovers(tmp_path)
    assert [found.facts.length for found in left.whole] == [7]
    assert close(left) == ["a"]
    assert names(tmp_path) == ["a.2.json", "a.2.part"]


def test_what_is_left_of_an_id_that_means_another_clip_is_forgotten(tmp_path: Path) -> None:
    begin(tmp_path, "a.1", b"12345")
    begin(tmp_path, "ab.1", b"12345")
    forget_clip(tmp_path, "a")
    assert names(tmp_path) == ["ab.1.json", "ab.1.part"]


def fails_with(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("where", ["touch", "replace"])
def test_a_disk_that_is_full_hides_nothing_but_what_is_of_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    keep(tmp_path, "a.1", b"ftyp changed", sha256="0" * 64, age=5)
    keep(tmp_path, "b.1", b"ftyp whole")
    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr(Path, where, fails_with(errno.ENOSPC))
        left = find_leftovers(tmp_path)
    assert [path.name for path in left.useless] == ["a.1.part"]
    assert close(left) == ["b"]
    assert open_files() == before
    again = find_leftovers(tmp_path)
    assert close(again) == ["b"]
    assert (tmp_path / "a.1.part").read_bytes() == b""


def test_a_clip_that_the_disk_cannot_read_any_more_is_of_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, "a.1", b"ftyp whole")
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fails_with(errno.EIO))
        left = find_leftovers(tmp_path)
    assert ([path.name for path in left.useless], left.whole) == (["a.1.part"], [])


@pytest.mark.parametrize(("length", "said"), [(99, []), (100, [100])])
def test_a_start_that_has_much_to_read_says_so_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, said: list[int]
) -> None:
    monkeypatch.setattr(aftermath, "_MUCH", 100)
    path, storing = keep(tmp_path, "a.1", bytes(length)), Mock(clips={})
    with capture_logs() as log:
        start = aftermath.Aftermath(
            Mock(),
            storing=storing,
            commits=Mock(),
            ledger=Mock(),
            shelf=Mock(in_thread=asyncio.to_thread),
            disk=Mock(),
            spool_dir=tmp_path,
        )
        asyncio.run(start.load())
    assert [line["bytes"] for line in log if "bytes" in line] == said
    assert path.exists()
    for kept in storing.clips.values():
        kept.file.release()
