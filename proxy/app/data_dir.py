"""What the operating system refuses in the data directory, in the owner's words.

Belongs here: one border for all that is opened there at the start. Must not know: what that is.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.errors import DataDirUnusable

_MENDS: Final = {
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room on its disk",
    errno.EMFILE: "let this process open more files (LimitNOFILE=, ulimit -n)",
    errno.ENFILE: "let this machine open more files (fs.file-max)",
}
_MEND: Final = "set it to a folder that the user who runs firstview may write to"


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[None]:
    """Turn the operating system's errors within the block into DataDirUnusable."""
    try:
        yield
    except OSError as error:
        path, why = error.filename or directory, error.strerror or str(error)
        mend = _MENDS.get(error.errno or 0, _MEND)
        raise DataDirUnusable(f"FIRSTVIEW_DATA_DIR: {path}: {why}: {mend}") from error
