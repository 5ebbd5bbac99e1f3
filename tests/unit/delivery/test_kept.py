"""Kept clips found again: whole ones with the right digest, and nothing else stays."""

from __future__ import annotations

import fcntl
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest

from proxy.delivery.kept import Kept, Spooled, find_kept, forget_unfinished, id_of
from proxy.records import ClipFacts
from proxy.storage.disk_cache import Reservation
from proxy.storage.facts_file import write_facts


def keep(folder: Path, name: str, data: bytes, *, sha256: str | None = None, age: int = 0) -> Path:
    """Write a kept clip as a process leaves it; `name` is `<request_id>.<source>`."""
    path = folder / f"{name}.part"
    path.write_bytes(data)
    os.utime(path, (1000 - age, 1000 - age))
    write_facts(
        path.with_suffix(".json"),
        ClipFacts(
            request_id=name.partition(".")[0],
            length=len(data),
            etag="e" * 32,
            last_modified=datetime(2026, 1, 1, tzinfo=UTC),
        ),
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
        fal_url="https://fal.media/files/clip.mp4",
    )
    return path


def close(spooled: Spooled) -> list[str]:
    for found in spooled.whole:
        os.close(found.fd)
    return sorted(found.facts.request_id for found in spooled.whole)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_clip_is_found_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    path = keep(tmp_path, "a.1", b"bytes")
    spooled = find_kept(tmp_path)
    [found] = spooled.whole
    assert (found.path, found.facts.length, found.fal_url) == (
        path,
        5,
        "https://fal.media/files/clip.mp4",
    )
    assert os.pread(found.fd, 10, 0) == b"bytes"
    assert spooled.unfinished == []
    assert close(spooled) == ["a"]


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    assert find_kept(tmp_path / "spool").whole == []
    assert (tmp_path / "spool").is_dir()


def test_what_changed_on_the_disk_is_emptied_and_named_until_it_is_forgotten(
    tmp_path: Path,
) -> None:
    """Peers 20 (pulpcore#5012): a copy that is no longer what was verified is of no use."""
    keep(tmp_path, "flipped.1", b"bytes").write_bytes(b"bytez")
    keep(tmp_path, "longer.1", b"bytes").write_bytes(b"bytes and more")
    os.truncate(keep(tmp_path, "shorter.1", b"bytes"), 2)
    keep(tmp_path, "good.1", b"bytes")
    (tmp_path / "unfinished.1.part").write_bytes(b"by")
    (tmp_path / "alone.1.json").write_bytes(b"{}")
    (tmp_path / "alone.1.json.tmp").write_bytes(b"{}")
    spooled = find_kept(tmp_path)
    assert close(spooled) == ["good"]
    useless = ["flipped", "longer", "shorter", "unfinished"]
    assert sorted(map(id_of, spooled.unfinished)) == useless
    assert sum(path.stat().st_size for path in spooled.unfinished) == 0
    again = find_kept(tmp_path)  # by the next process, should this one die
    assert sorted(map(id_of, again.unfinished)) == useless
    close(again)
    forget_unfinished(spooled.unfinished)
    assert names(tmp_path) == ["good.1.json", "good.1.part"]


def test_an_object_of_the_bucket_whose_spool_name_was_left_behind_keeps_its_bytes(
    tmp_path: Path,
) -> None:
    """A process that dies while it clears away leaves a second name of the bucket's own file."""
    path = keep(tmp_path, "a.1", b"bytes")
    committed = tmp_path / "object"
    os.link(path, committed)
    path.with_suffix(".json").unlink()
    spooled = find_kept(tmp_path)
    assert spooled.unfinished == [path]
    assert (path.read_bytes(), committed.read_bytes()) == (b"", b"bytes")
    assert names(tmp_path) == ["a.1.part", "object"]


def test_clearing_away_leaves_no_moment_in_which_a_file_is_taken_for_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep(tmp_path, "a.1", b"bytes")
    [found] = find_kept(tmp_path).whole
    left: list[list[str]] = []
    unlink = Path.unlink

    def watched(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        left.append(names(tmp_path))

    monkeypatch.setattr(Path, "unlink", watched)
    Kept.from_disk(found, Mock(spec=Reservation)).delete()
    assert left == [[path.with_suffix(".json").name], []]
    os.close(found.fd)


def test_what_a_process_left_that_died_while_it_emptied_a_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.1.part.empty").touch()
    assert find_kept(tmp_path).unfinished == []
    assert names(tmp_path) == []


def test_what_is_being_filled_anew_is_not_forgotten(tmp_path: Path) -> None:
    for name in ("begun", "growing"):
        (tmp_path / f"{name}.1.part").write_bytes(b"by")
    unfinished = find_kept(tmp_path).unfinished
    (tmp_path / "growing.1.part").write_bytes(b"anew")
    with (tmp_path / "begun.1.part").open("r+b") as begun:
        fcntl.flock(begun, fcntl.LOCK_EX)
        forget_unfinished(unfinished)
    assert names(tmp_path) == ["begun.1.part", "growing.1.part"]


def test_what_another_process_has_locked_is_left_alone(tmp_path: Path) -> None:
    keep(tmp_path, "kept.1", b"bytes")
    (tmp_path / "filling.1.part").write_bytes(b"by")
    held = [os.open(tmp_path / name, os.O_RDWR) for name in ("kept.1.part", "filling.1.part")]
    for fd in held:
        fcntl.flock(fd, fcntl.LOCK_EX)
    spooled = find_kept(tmp_path)
    assert (spooled.whole, spooled.unfinished) == ([], [])
    assert names(tmp_path) == ["filling.1.part", "kept.1.json", "kept.1.part"]
    for fd in held:
        os.close(fd)
    assert close(find_kept(tmp_path)) == ["kept"]


def test_a_found_clip_is_locked_until_it_is_let_go(tmp_path: Path) -> None:
    keep(tmp_path, "a.1", b"bytes")
    first = find_kept(tmp_path)
    assert find_kept(tmp_path).whole == []
    assert close(first) == ["a"]
    assert close(find_kept(tmp_path)) == ["a"]


def test_of_two_clips_of_one_id_the_newer_one_is_kept(tmp_path: Path) -> None:
    keep(tmp_path, "a.1", b"old", age=60)
    keep(tmp_path, "a.2", b"new one")
    spooled = find_kept(tmp_path)
    assert [found.facts.length for found in spooled.whole] == [7]
    assert close(spooled) == ["a"]
    assert names(tmp_path) == ["a.2.json", "a.2.part"]
