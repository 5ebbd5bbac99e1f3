"""The files that the fake fal.media serves.

Belongs here: making files that pass for clips. Must not know: who serves them.
"""

from __future__ import annotations

import os
from pathlib import Path

_FTYP = b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41"
_PIECE = 1024 * 1024


def write_clip(path: Path, size: int) -> None:
    """Write bytes that no disk can store more cheaply than others."""
    with path.open("wb") as file:
        file.write(_FTYP)
        left = size - len(_FTYP)
        while left > 0:
            file.write(os.urandom(min(left, _PIECE)))
            left -= _PIECE


def write_sparse_clip(path: Path, size: int) -> None:
    """Write a clip of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        file.write(_FTYP)
        file.truncate(size)
