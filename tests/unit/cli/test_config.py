"""`firstview config` shows every setting, and no secret."""

from pathlib import Path

import pytest

from proxy import settings
from proxy.cli.config import Setting, describe
from proxy.settings import Settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def described() -> dict[str, Setting]:
    return {line.name: line for line in describe(settings.load())}


def test_every_setting_is_there_with_a_sentence() -> None:
    lines = described()
    assert set(lines) == {f"FIRSTVIEW_{name}".upper() for name in Settings.model_fields}
    assert all(line.sentence.endswith(".") for line in lines.values())


def test_units_and_defaults_are_those_of_the_program() -> None:
    lines = described()
    stall = lines["FIRSTVIEW_UPSTREAM_STALL_TIMEOUT"]
    assert (stall.unit, stall.default, stall.value, stall.source) == ("seconds", 15, 15, "default")
    clip = lines["FIRSTVIEW_MAX_CLIP_BYTES"]
    assert (clip.unit, clip.default, clip.value) == ("bytes", 2 * 1024**3, 2 * 1024**3)


def test_the_environment_wins_over_the_file_and_both_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("FIRSTVIEW_MAX_FILLS=7\nFIRSTVIEW_LISTEN=:1\n")
    monkeypatch.setenv("FIRSTVIEW_LISTEN", ":2")
    lines = described()
    fills, listen = lines["FIRSTVIEW_MAX_FILLS"], lines["FIRSTVIEW_LISTEN"]
    assert (fills.value, fills.source) == (7, ".env")
    assert (listen.value, listen.source) == (":2", "environment")


def test_secrets_are_masked_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTVIEW_DATABASE_URL", "postgresql://u:s3cret@host/db")
    monkeypatch.setenv("FIRSTVIEW_ADMIN_TOKEN", "s3cret")
    lines = described()
    assert lines["FIRSTVIEW_DATABASE_URL"].value == "********"
    assert lines["FIRSTVIEW_ADMIN_TOKEN"].value == "********"
    assert "s3cret" not in repr(lines)
