"""The servers that other tests lean on are real, empty at first, and strict where it matters."""

import dataclasses
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import time_machine
from botocore.exceptions import ClientError

from tests.fixtures.s3 import S3Server
from tests.fixtures.turns import GROUPS, group_of

ROOT = Path(__file__).resolve().parents[2]


async def test_each_test_gets_a_database_without_tables(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        tables = await connection.fetchval(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        )
        await connection.execute("CREATE TABLE left_behind (id int)")
    finally:
        await connection.close()
    assert tables == 0


async def test_a_table_of_another_test_is_not_seen(postgres_url: str) -> None:
    await test_each_test_gets_a_database_without_tables(postgres_url)


def test_the_bucket_exists_and_is_empty(s3_client: Any, s3_bucket_name: str) -> None:
    assert s3_client.list_objects_v2(Bucket=s3_bucket_name)["KeyCount"] == 0


def test_a_conditional_put_of_a_key_that_exists_is_refused(
    s3_client: Any, s3_bucket_name: str
) -> None:
    put = {"Bucket": s3_bucket_name, "Key": "clip", "IfNoneMatch": "*"}
    s3_client.put_object(Body=b"first", **put)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3_client.put_object(Body=b"second", **put)
    assert s3_client.get_object(Bucket=s3_bucket_name, Key="clip")["Body"].read() == b"first"


def test_a_body_that_does_not_match_its_md5_is_refused(s3_client: Any, s3_bucket_name: str) -> None:
    of_nothing = "1B2M2Y8AsgTpgAmY7PhCfg=="
    with pytest.raises(ClientError, match="BadDigest"):
        s3_client.put_object(Bucket=s3_bucket_name, Key="clip", Body=b"x", ContentMD5=of_nothing)


def test_a_wrong_secret_is_refused(s3_server: S3Server, s3_bucket_name: str) -> None:
    stranger = dataclasses.replace(s3_server, secret_key="not the secret").client()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.list_objects_v2(Bucket=s3_bucket_name)
    stranger.close()


def _get_presigned(client: Any, bucket: str, *, signed_at: datetime) -> int:
    client.put_object(Bucket=bucket, Key="clip", Body=b"bytes")
    with time_machine.travel(signed_at, tick=False):
        what = {"Bucket": bucket, "Key": "clip"}
        url = client.generate_presigned_url("get_object", what, ExpiresIn=60)
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def test_a_presigned_url_is_good_at_first(s3_client: Any, s3_bucket_name: str) -> None:
    assert _get_presigned(s3_client, s3_bucket_name, signed_at=datetime.now(UTC)) == 200


def test_a_presigned_url_expires(s3_client: Any, s3_bucket_name: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(seconds=120)
    assert _get_presigned(s3_client, s3_bucket_name, signed_at=long_ago) == 403


def test_what_takes_turns_is_there_and_is_found_by_its_id() -> None:
    for name, ids in GROUPS.items():
        for begins in ids:
            file, _, test = begins.partition("::")
            assert f"def {test or 'test_'}" in (ROOT / file).read_text(), begins
            assert group_of(f"{file}::{test or 'test_x'}[1-2@x]") == name
    assert group_of("tests/acceptance/test_demo.py::test_the_end_does_not_wait") is None
