"""What is said of a data directory that cannot be used."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from proxy.app import App, data_dir
from proxy.errors import DataDirUnusable
from tests.fixtures.origin import settings_for


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.EACCES, "may write to"),
        (errno.EROFS, "may write to"),
        (errno.ENOTDIR, "set it to a folder"),
        (errno.ENOSPC, "make room"),
        (errno.EMFILE, "open more files"),
    ],
)
def test_what_the_system_refuses_is_told_with_the_setting_the_place_and_the_mend(
    number: int, mend: str
) -> None:
    with pytest.raises(DataDirUnusable) as caught, data_dir.opened(Path("/data")):
        raise OSError(number, os.strerror(number), "/data/spool")
    assert caught.value.detail.startswith("FIRSTVIEW_DATA_DIR: /data/spool: ")
    assert mend in caught.value.detail


@pytest.mark.parametrize("name", ["data", "data/run", "data/spool", "data/cache"])
async def test_a_file_where_a_folder_should_be_is_named(name: str, tmp_path: Path) -> None:
    blocked = tmp_path / name
    blocked.parent.mkdir(exist_ok=True)
    blocked.touch()
    with pytest.raises(DataDirUnusable) as caught:
        async with App(settings_for(tmp_path / "data")).working(works=False, sweeps=False):
            pass
    assert f"{blocked}: File exists" in caught.value.detail
