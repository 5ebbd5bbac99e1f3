"""How a clip is cut into parts, and when two objects count as the same."""

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.storage.bucket import NewObject, ObjectInfo
from proxy.storage.parts import MAX_PARTS, MIB, part_size
from proxy.storage.same_object import multipart_etag, same_object

DATA = b"the clip"
MD5 = hashlib.md5(DATA).digest()
SHA256 = hashlib.sha256(DATA).hexdigest()


@given(st.integers(1, 5 * 1024**4), st.integers(5 * MIB, 5 * 1024**3))
def test_ten_thousand_parts_are_always_enough(size: int, wanted: int) -> None:
    each = part_size(size, wanted)
    assert each >= wanted
    assert -(-size // each) <= MAX_PARTS
    assert each == wanted or each % MIB == 0


def test_a_part_grows_only_when_it_must() -> None:
    assert part_size(MAX_PARTS * 5 * MIB, 5 * MIB) == 5 * MIB
    assert part_size(MAX_PARTS * 5 * MIB + 1, 5 * MIB) == 6 * MIB


def test_the_etag_of_parts_is_the_one_that_s3_gives() -> None:
    assert multipart_etag([MD5, MD5]) == hashlib.md5(MD5 + MD5).hexdigest() + "-2"


async def md5_of_the_file() -> bytes:
    return MD5


@pytest.mark.parametrize(
    ("size", "etag", "encryption", "metadata", "same"),
    [
        (9, MD5.hex(), "", {"firstview-sha256": SHA256}, False),
        (8, "opaque", "", {"firstview-sha256": SHA256}, True),
        (8, MD5.hex(), "", {"firstview-sha256": "0" * 64}, False),
        (8, "0" * 32, "", {"firstview-sha256": SHA256}, False),
        (8, "0" * 32, "aws:kms", {"firstview-sha256": SHA256}, True),
        (8, MD5.hex(), "", {}, True),
        (8, "0" * 32, "", {"firstview-etag": "ours"}, False),
        (8, "0" * 32, "aws:kms", {"firstview-etag": "ours"}, True),
        (8, "0" * 32, "aws:kms", {}, False),
        (8, multipart_etag([MD5]), "", {}, True),
        (8, "0" * 32 + "-1", "", {"firstview-etag": "ours"}, False),
        (8, "0" * 32 + "-1", "aws:kms", {"firstview-etag": "ours"}, True),
        (8, "0" * 32 + "-2", "", {"firstview-etag": "ours"}, True),
        (8, "0" * 32 + "-2", "", {"firstview-etag": "another"}, False),
        (8, "0" * 32 + "-2", "", {}, False),
    ],
)
async def test_only_what_is_proved_equal_counts_as_the_same(
    size: int, etag: str, encryption: str, metadata: dict[str, str], same: bool
) -> None:
    found = ObjectInfo(
        key="k", size=size, etag=etag, last_modified=datetime.now(UTC), metadata=metadata
    )
    new = NewObject(key="k", size=8, content_type="", metadata={"firstview-etag": "ours"})
    headers = {"ETag": f'"{etag}"', "x-amz-server-side-encryption": encryption}
    parts_etag = multipart_etag([MD5])
    assert same is await same_object(
        new, found, headers, sha256=SHA256, parts_etag=parts_etag, md5=md5_of_the_file
    )
