"""Every key in the bucket and every path on disk, in one place.

Bucket (s3://name or a directory):

    videos/<request_id>.mp4                        the clip; user metadata below
    videos/firstview-doctor/<random>               for seconds, while `firstview doctor` tries

Data directory (FIRSTVIEW_DATA_DIR):

    catalog.sqlite                                 the embedded catalog
    bucket/                                        the embedded bucket
    │   videos/<request_id>.mp4                    as in S3; the extended attribute user.firstview
    │                                              holds what S3 keeps as metadata, and the SHA-256
    │   .meta/videos/<request_id>.mp4.json         the same, where there are no such attributes
    │   .tmp/<random>                              written, not yet visible
    │   .lock                                      flock'ed by whoever makes an object visible
    spool/<request_id>.<source>.part               a clip on its way in; flock'ed by its filler
    spool/<request_id>.<source>.json               its facts: who it is, where it came from; its
                                                   flock is shared by processes that watch it
    cache/<2 hex>/<16 hex>.mp4                     a whole clip whose bucket copy is elsewhere, with
                                                   its facts behind it; the name is the id's hash
    run/shared.<16 hex>                            what the processes of this machine share; the
                                                   name follows from its layout
    run/<name>.lock                                flock'ed: budget, cache, janitor, upkeep,
                                                   seat-<n>
    .firstview-doctor-<random>/                    for a second, while `firstview doctor` tries

`<source>` is the first 16 hex digits of the SHA-256 of the source's identity, so that a re-pointed
id never continues the file of its former source.

Belongs here: names. Must not know: how any of them is read or written.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

VIDEOS_PREFIX = "videos/"
DOCTOR_PREFIX = f"{VIDEOS_PREFIX}firstview-doctor/"
"""Below the clips' own, because credentials may be good for those alone."""

CACHE_FOLDERS = 256
_CACHED = re.compile(r"([0-9a-f]{16})\.mp4")

META_ETAG = "firstview-etag"
META_LAST_MODIFIED = "firstview-last-modified"
META_SHA256 = "firstview-sha256"
META_MODEL = "firstview-model"
META_REQUEST_ID = "firstview-request-id"
META_PROMPT_HASH = "firstview-prompt-hash"
META_GATED = "firstview-gated"


def clip_key(request_id: str) -> str:
    """Bucket key of a clip."""
    return f"{VIDEOS_PREFIX}{request_id}.mp4"


def clip_path(request_id: str) -> str:
    """Public URL path of a clip: the key, rooted."""
    return f"/{clip_key(request_id)}"


def doctor_key(token: str) -> str:
    """Bucket key of what `firstview doctor` writes and removes; no clip has a slash in its id."""
    return f"{DOCTOR_PREFIX}{token}"


def doctor_dir(place: Path, token: str) -> Path:
    """Folder in which `firstview doctor` tries what a file system can do."""
    return place / f".firstview-doctor-{token}"


def short_hash(text: str) -> str:
    """First 16 hex digits of a text's SHA-256: a name, not a secret."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def database_url(configured: str, data_dir: Path) -> str:
    """The catalog's URL: as configured, else the embedded catalog's file."""
    return configured or f"sqlite:///{data_dir.absolute() / 'catalog.sqlite'}"


def bucket_url(configured: str, data_dir: Path) -> str:
    """The bucket's URL: as configured, else the embedded bucket's directory."""
    return configured or (data_dir.absolute() / "bucket").as_uri()


def spool_dir(data_dir: Path) -> Path:
    """Where clips on their way in are kept, by all processes of a machine."""
    return data_dir / "spool"


def cache_dir(data_dir: Path) -> Path:
    """Where whole clips of a remote bucket are kept."""
    return data_dir / "cache"


def spool_path(spool: Path, request_id: str, source: str) -> Path:
    """The file of a clip on its way in from `source` (its identity)."""
    return spool / f"{request_id}.{short_hash(source)}.part"


def spool_facts_path(part: Path) -> Path:
    """What is said beside a clip on its way in, by that clip's file."""
    return part.with_suffix(".json")


def run_dir(data_dir: Path) -> Path:
    """Where the processes of this machine have what they share."""
    return data_dir / "run"


def shared_path(run: Path, layout: str) -> Path:
    """The memory that the processes of this machine share, as far as they mean the same by it."""
    return run / f"shared.{layout}"


def lock_path(run: Path, name: str) -> Path:
    """A lock that one process of this machine at a time may hold."""
    return run / f"{name}.lock"


def clip_hash(request_id: str) -> int:
    """64 bits that stand for an id where there is no room for its name."""
    return int(short_hash(request_id), 16)


def cache_folder(number: int) -> str:
    """One of the `CACHE_FOLDERS` folders that cached clips are spread over."""
    return f"{number:02x}"


def cached_name(clip: int) -> str:
    """File name of a cached clip, with its folder: a function of its id's hash alone."""
    return f"{cache_folder(clip >> 56)}/{clip:016x}.mp4"


def clip_of_cached(name: str) -> int | None:
    """The hash in a cached clip's file name, without its folder; None if it is no such name."""
    found = _CACHED.fullmatch(name)
    return None if found is None else int(found[1], 16)


def object_path(bucket: Path, key: str) -> Path:
    """A directory bucket's file for a key."""
    return bucket / key


def object_meta_path(bucket: Path, key: str) -> Path:
    """A directory bucket's metadata file for a key."""
    return bucket / ".meta" / f"{key}.json"


def object_temp_dir(bucket: Path) -> Path:
    """Where a directory bucket writes what is not yet visible."""
    return bucket / ".tmp"


def object_lock_path(bucket: Path) -> Path:
    """The file that a directory bucket's writers lock while they change what is visible."""
    return bucket / ".lock"
