"""What is made of what was seen, without asking anybody."""

from __future__ import annotations

import errno
import hashlib
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.catalog import schema
from proxy.cli.doctor.clocks import judge_date
from proxy.cli.doctor.data_dir import Room, judge_files, judge_room
from proxy.cli.doctor.database_words import (
    judge_connections,
    judge_latency,
    judge_schema,
    judge_version,
)
from proxy.cli.doctor.fal import judge_hosts
from proxy.cli.doctor.file_systems import XATTRS, judge_call, judge_kind, kind_of
from proxy.cli.doctor.finding import Mark
from proxy.cli.doctor.machine import judge_descriptors, judge_memory, judge_workers, memory_of
from proxy.cli.doctor.s3_words import (
    judge_complete,
    judge_head,
    judge_lifecycle,
    judge_range,
    judge_refusal,
    judge_second_put,
)
from proxy.cli.doctor.settings import judge, unread_by_aws
from proxy.storage.s3_probe import Reply
from tests.fixtures.origin import settings_for

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
GIB = 1024**3
SETTINGS = settings_for(Path("data"), admin_token="x")


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "mark"),
    [(0, Mark.OK), (-4, Mark.OK), (20, Mark.WARNING), (-60, Mark.WARNING), (3600, Mark.FAILS)],
)
def test_a_clock_is_judged_by_a_date(ahead: int, mark: Mark) -> None:
    verdict = judge_date("Sat, 21 Nov 2026 12:00:00 GMT", NOW + timedelta(seconds=ahead), "fal")
    assert verdict.mark is mark
    assert ("ahead of" in verdict.seen) == (ahead > 5)


def test_a_reply_without_a_date_says_nothing_of_the_clock() -> None:
    assert judge_date(None, NOW, "fal").mark is Mark.UNCHECKED
    assert judge_date("yesterday", NOW, "fal").mark is Mark.UNCHECKED


# --- the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hard", "mark"),
    [
        (resource.RLIM_INFINITY, Mark.OK),
        (1_048_576, Mark.OK),
        (24_000, Mark.WARNING),
        (1024, Mark.FAILS),
    ],
)
def test_descriptors_have_to_do_for_all_connections(hard: int, mark: Mark) -> None:
    verdict = judge_descriptors(hard, SETTINGS)
    assert verdict.mark is mark
    assert (mark is Mark.OK) == ("FIRSTVIEW_MAX_CONNECTIONS" not in verdict.advice)


def test_more_workers_than_cores_wait_for_each_other() -> None:
    assert judge_workers(2, 2).mark is Mark.OK
    assert "FIRSTVIEW_WORKERS=auto" in judge_workers(1, 8).seen
    assert judge_workers(8, 2).mark is Mark.WARNING


def test_memory_is_what_the_control_group_leaves_of_it() -> None:
    meminfo = "MemTotal:  8388608 kB\nMemAvailable:  4194304 kB\n"
    assert memory_of("max\n", meminfo) == 4 * GIB
    assert memory_of(f"{GIB}\n", meminfo) == GIB
    assert memory_of("", "") is None


@pytest.mark.parametrize(
    ("available", "mark"),
    [(None, Mark.OK), (64 * GIB, Mark.OK), (GIB // 2, Mark.WARNING), (GIB // 8, Mark.FAILS)],
)
def test_memory_has_to_do_for_all_workers(available: int | None, mark: Mark) -> None:
    assert judge_memory(available, 2, SETTINGS).mark is mark


# --- the disk ------------------------------------------------------------------------------------

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /var/lib rw shared:2 - xfs /dev/sdb1 rw
31 22 0:27 / /var/lib/first\\040view rw - nfs4 host:/x rw
32 22 0:28 / /run rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home", "ext4"),
        ("/var/lib", "xfs"),
        ("/var/library", "ext4"),
        ("/var/lib/first view/data", "nfs4"),
        ("/run/firstview", "tmpfs"),
    ],
)
def test_the_kind_of_a_file_system_is_that_of_its_mount(path: str, kind: str) -> None:
    assert kind_of(path, MOUNTS) == kind


@pytest.mark.parametrize(
    ("kind", "sqlite", "mark"),
    [
        ("ext4", True, Mark.OK),
        ("", True, Mark.OK),
        ("tmpfs", False, Mark.WARNING),
        ("overlay", True, Mark.WARNING),
        ("nfs4", False, Mark.WARNING),
        ("nfs4", True, Mark.FAILS),
        ("fuse.s3fs", True, Mark.FAILS),
    ],
)
def test_some_kinds_are_no_good_for_clips(kind: str, sqlite: bool, mark: Mark) -> None:
    verdict = judge_kind(kind, sqlite=sqlite)
    assert verdict.mark is mark
    assert (mark is Mark.OK) == (verdict.advice == "")


def test_a_file_system_may_lack_attributes_but_nothing_else() -> None:
    missing = OSError(errno.ENOTSUP, "no")
    assert judge_call("locks", None).mark is Mark.OK
    assert judge_call(XATTRS, missing).mark is Mark.WARNING
    assert judge_call("hard links", missing).mark is Mark.FAILS
    assert "make room" in judge_call("write and sync", OSError(errno.ENOSPC, "full")).advice


@pytest.mark.parametrize(
    ("free", "ours", "mark"),
    [(30, 0, Mark.OK), (5, 20, Mark.OK), (10, 0, Mark.WARNING), (0, 30, Mark.FAILS)],
)
def test_what_is_free_and_what_is_cached_has_to_do_for_the_budget(
    free: int, ours: int, mark: Mark
) -> None:
    room = Room(free=free * GIB, total=100 * GIB, files=None, ours=ours * GIB)
    verdict = judge_room(room, SETTINGS)
    assert verdict.mark is mark
    if mark is Mark.WARNING:
        assert "FIRSTVIEW_CACHE_MAX_BYTES to 10239MiB" in verdict.advice  # the reserve is 1 MiB


def test_few_inodes_are_a_warning() -> None:
    assert judge_files(None).mark is Mark.UNCHECKED
    assert judge_files(10).mark is Mark.WARNING
    assert judge_files(10**6).mark is Mark.OK


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "check"),
    [
        ("max_clip_bytes", "30GiB", "cache"),
        ("max_viewers", 30_000, "viewers"),
        ("keepalive_timeout", "75s", "keep-alive"),
        ("webhook_patience", "20s", "webhooks"),
        ("upstream_expires_after", "12h", "expiry"),
        ("admin_token", None, "admin API"),
        ("upstream_allow_insecure", True, "insecure"),
    ],
)
def test_what_is_allowed_but_odd_is_pointed_out(setting: str, value: object, check: str) -> None:
    fine = settings_for(Path("data"), upstream_allow_insecure=False)
    assert list(judge(fine)) == []
    [(name, verdict)] = judge(fine.model_copy(update={setting: _read(setting, value)}))
    assert name == check
    assert verdict.mark is Mark.WARNING
    assert verdict.advice


def _read(setting: str, value: object) -> object:
    return getattr(settings_for(Path("data"), **{setting: value}), setting)


def test_the_buckets_keys_are_not_read_from_the_file() -> None:
    in_file = {"AWS_ACCESS_KEY_ID": "x", "AWS_REGION": "x", "FIRSTVIEW_LISTEN": ":1"}
    assert unread_by_aws(in_file, {"AWS_REGION": "auto"}) == ["AWS_ACCESS_KEY_ID"]


# --- S3 ------------------------------------------------------------------------------------------

BODY = b"abcdefgh"
MD5 = hashlib.md5(BODY).hexdigest()


def reply(status: int, code: str = "", *, body: bytes = b"", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, code=code, headers=named, body=body)


@pytest.mark.parametrize(
    ("status", "code", "mend"),
    [
        (403, "AccessDenied", "s3:PutObject on clips"),
        (403, "", "s3:PutObject on clips"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", "clock"),
        (404, "NoSuchBucket", "FIRSTVIEW_BUCKET_URL"),
        (301, "PermanentRedirect", "AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", "AWS_REGION"),
        (501, "NotImplemented", "use a store"),
        (404, "", "HTTP_PROXY"),
        (500, "InternalError", "try again"),
    ],
)
def test_a_refusal_says_what_to_change(status: int, code: str, mend: str) -> None:
    verdict = judge_refusal(reply(status, code), "s3:PutObject", "clips", "https://s3.example")
    assert verdict.mark is Mark.FAILS
    assert mend in verdict.advice


def test_a_store_that_forgets_what_was_just_written_is_no_store() -> None:
    for code in ("", "NoSuchKey"):
        verdict = judge_refusal(reply(404, code), "s3:GetObject", "clips", "https://s3.example")
        assert "reads its own writes" in verdict.advice


def test_a_store_has_to_refuse_a_second_write() -> None:
    for status in (412, 409):
        verdict = judge_second_put(reply(status))
        assert verdict is not None
        assert verdict.mark is Mark.OK
    ignored = judge_second_put(reply(200))
    assert ignored is not None
    assert ignored.mark is Mark.FAILS
    assert judge_second_put(reply(403)) is None


@pytest.mark.parametrize(
    ("status", "asked", "mark"),
    [
        (412, True, Mark.OK),
        (200, True, Mark.WARNING),
        (501, True, Mark.FAILS),
        (200, False, Mark.OK),
        (501, False, Mark.OK),
        (403, True, None),
    ],
)
def test_the_end_of_an_upload_may_know_the_condition_if_it_is_sent(
    status: int, asked: bool, mark: Mark | None
) -> None:
    verdict = judge_complete(reply(status), asked=asked)
    assert (None if verdict is None else verdict.mark) is mark


def test_an_object_has_its_size_its_md5_and_its_metadata() -> None:
    good = reply(200, content_length="8", etag=f'"{MD5}"')
    assert "MD5" in judge_head(good, BODY, {}).seen
    assert judge_head(good, BODY, {"firstview-sha256": "x"}).mark is Mark.FAILS
    assert judge_head(good, BODY[1:], {}).mark is Mark.FAILS
    encrypted = judge_head(reply(200, content_length="8", etag='"x-1"'), BODY, {})
    assert (encrypted.mark, "KMS" in encrypted.seen) == (Mark.OK, True)


@pytest.mark.parametrize(
    ("status", "content_range", "body", "mark"),
    [
        (206, "bytes 2-4/8", b"cde", Mark.OK),
        (206, "bytes 2-4/8", b"xyz", Mark.FAILS),
        (206, "bytes 2-4/*", b"cde", Mark.FAILS),
        (206, "bytes 0-2/8", b"abc", Mark.FAILS),
        (200, "none", BODY, Mark.FAILS),
    ],
)
def test_a_range_is_the_one_that_was_asked_for(
    status: int, content_range: str, body: bytes, mark: Mark
) -> None:
    given = reply(status, body=body, content_range=content_range)
    assert judge_range(given, BODY, 2, 5).mark is mark


def test_somebody_removes_unfinished_uploads() -> None:
    rule = {"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    has = Reply(status=200, found={"Rules": [rule]})
    none = reply(404, "NoSuchLifecycleConfiguration")
    assert judge_lifecycle(has, "").mark is Mark.OK
    assert judge_lifecycle(Reply(status=200, found={"Rules": []}), "").mark is Mark.WARNING
    assert judge_lifecycle(none, "https://s3.eu-west-1.amazonaws.com").mark is Mark.WARNING
    assert judge_lifecycle(none, "https://a.r2.cloudflarestorage.com").mark is Mark.OK
    assert judge_lifecycle(reply(403, "AccessDenied"), "").mark is Mark.UNCHECKED


# --- the database --------------------------------------------------------------------------------


def test_a_schema_is_the_one_that_is_needed() -> None:
    assert judge_schema(schema.HEAD, migrates=False).mark is Mark.OK
    assert judge_schema("9999", migrates=False).mark is Mark.WARNING
    for revision in (None, schema.REVISIONS[0]):
        assert judge_schema(revision, migrates=True).mark is Mark.OK
        behind = judge_schema(revision, migrates=False)
        assert behind.mark is Mark.FAILS
        assert "firstview catalog migrate" in behind.advice


def test_a_server_has_to_be_near_recent_and_roomy() -> None:
    assert judge_latency(0.001, "PostgreSQL").mark is Mark.OK
    assert judge_latency(0.2, "PostgreSQL").mark is Mark.WARNING
    assert judge_version(150004).seen == "PostgreSQL 15.4"
    assert judge_version(120001).mark is Mark.WARNING
    assert judge_connections(97, 2, 4).mark is Mark.OK
    assert judge_connections(97, 60, 4).mark is Mark.WARNING


# --- fal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "marks"),
    [
        (("fal.media", "*.fal.media"), [Mark.OK]),
        (("fal.media", "storage.googleapis.com/fal"), [Mark.OK]),
        (("fal.media", "storage.googleapis.com"), [Mark.FAILS]),
        (("*.com", "fal.media"), [Mark.FAILS]),
        (("cdn.example.com",), [Mark.WARNING]),
    ],
)
def test_the_list_of_hosts_lets_no_stranger_in(hosts: tuple[str, ...], marks: list[Mark]) -> None:
    found = list(judge_hosts(settings_for(Path("data"), upstream_hosts=hosts)))
    assert [verdict.mark for _, verdict in found] == marks
    assert all(v.mark is Mark.OK or "FIRSTVIEW_UPSTREAM_HOSTS" in v.advice for _, v in found)
