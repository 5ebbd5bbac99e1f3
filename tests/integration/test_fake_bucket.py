"""The faulty bucket really keeps R2's rules, which no S3 test server keeps."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from tests.fakes.bucket import FaultyBucket

MIB = 1024 * 1024


@pytest_asyncio.fixture
async def client(r2_bucket: FaultyBucket) -> AsyncIterator[Any]:
    config = AioConfig(
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        retries={"total_max_attempts": 1},
    )
    session = get_session()
    async with session.create_client("s3", region_name="us-east-1", config=config) as made:
        yield made


async def begin(client: Any, bucket: str) -> dict[str, str]:
    begun = await client.create_multipart_upload(Bucket=bucket, Key="clip")
    return {"Bucket": bucket, "Key": "clip", "UploadId": begun["UploadId"]}


async def complete(client: Any, upload: dict[str, str], sizes: list[int]) -> None:
    parts = []
    for number, size in enumerate(sizes, 1):
        sent = await client.upload_part(**upload, PartNumber=number, Body=bytes(size))
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
    await client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


async def test_equal_parts_with_a_shorter_last_one_are_taken(
    client: Any, s3_bucket_name: str
) -> None:
    upload = await begin(client, s3_bucket_name)
    await complete(client, upload, [5 * MIB, 5 * MIB, 7])


@pytest.mark.parametrize("sizes", [[5 * MIB, 6 * MIB, 7], [5 * MIB, 5 * MIB + 1]])
async def test_unequal_parts_are_refused(
    client: Any, s3_bucket_name: str, sizes: list[int]
) -> None:
    upload = await begin(client, s3_bucket_name)
    with pytest.raises(ClientError, match="InvalidPart"):
        await complete(client, upload, sizes)


async def test_a_second_write_to_a_key_within_a_second_is_refused(
    client: Any, s3_bucket_name: str, r2_bucket: FaultyBucket
) -> None:
    assert r2_bucket.rules is not None
    assert r2_bucket.rules.between == 1.0
    r2_bucket.rules.between = 60.0  # a busy machine may take a second from one write to the next
    await client.put_object(Bucket=s3_bucket_name, Key="clip", Body=b"1")
    await client.put_object(Bucket=s3_bucket_name, Key="another", Body=b"1")
    with pytest.raises(ClientError, match="TooManyRequests"):
        await client.put_object(Bucket=s3_bucket_name, Key="clip", Body=b"2")
    r2_bucket.rules.between = 0.05
    await asyncio.sleep(0.06)
    await client.put_object(Bucket=s3_bucket_name, Key="clip", Body=b"2")


async def test_a_sha_checksum_on_a_part_is_refused(client: Any, s3_bucket_name: str) -> None:
    upload = await begin(client, s3_bucket_name)
    with pytest.raises(ClientError, match="NotImplemented"):
        await client.upload_part(**upload, PartNumber=1, Body=b"x", ChecksumAlgorithm="SHA256")


async def test_a_put_without_a_length_is_refused(
    client: Any, s3_bucket_name: str, r2_bucket: FaultyBucket
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"chunk"

    url = f"{r2_bucket.endpoint_url}/{s3_bucket_name}/clip"
    async with aiohttp.ClientSession() as session, session.put(url, data=body()) as reply:
        assert reply.status == 411


async def test_it_comes_back_on_the_same_port(client: Any, r2_bucket: FaultyBucket) -> None:
    before = r2_bucket.endpoint_url
    await r2_bucket.down()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(before)
    await r2_bucket.up()
    assert r2_bucket.endpoint_url == before
    await client.list_buckets()
