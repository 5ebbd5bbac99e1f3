"""`firstview config` shows every setting, and no secret."""

from pathlib import Path

import pytest

from proxy import settings
from proxy.cli.config import Setting, describe, run
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


def test_settings_that_may_be_unset_have_units_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert described()["FIRSTVIEW_MIRROR_BANDWIDTH"].unit == "bytes"
    monkeypatch.setenv("FIRSTVIEW_MIRROR_BANDWIDTH", "3MiB")
    monkeypatch.setenv("FIRSTVIEW_UPSTREAM_EXPIRES_AFTER", "7d")
    lines = described()
    bandwidth = lines["FIRSTVIEW_MIRROR_BANDWIDTH"]
    assert (bandwidth.unit, bandwidth.value, bandwidth.default) == ("bytes", 3 * 1024**2, None)
    expires = lines["FIRSTVIEW_UPSTREAM_EXPIRES_AFTER"]
    assert (expires.unit, expires.value) == ("seconds", 7 * 86400)
    assert lines["FIRSTVIEW_ADMIN_TOKEN"].unit == ""


@pytest.mark.parametrize(
    ("variables", "source", "value"),
    [
        ({}, "default", None),
        ({"FAL_KEY": "theirs"}, "environment, FAL_KEY", "theirs"),
        ({"FIRSTVIEW_FAL_KEY": "ours"}, "environment", "ours"),
        ({"FAL_KEY": "theirs", "FIRSTVIEW_FAL_KEY": "ours"}, "environment", "ours"),
    ],
)
def test_fals_own_name_for_its_key_is_named_where_it_is_used(
    variables: dict[str, str], source: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAL_KEY", raising=False)
    for name, said in variables.items():
        monkeypatch.setenv(name, said)
    assert described()["FIRSTVIEW_FAL_KEY"].source == source
    key = settings.load().fal_key
    assert (key and key.get_secret_value()) == value


def test_fals_own_name_may_stand_in_the_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAL_KEY", raising=False)
    (tmp_path / ".env").write_text("FAL_KEY=theirs\n")
    assert described()["FIRSTVIEW_FAL_KEY"].source == ".env, FAL_KEY"
    key = settings.load().fal_key
    assert key is not None
    assert key.get_secret_value() == "theirs"


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


def test_in_a_pipe_each_setting_is_one_line_without_an_end_of_spaces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(as_json=False, changed=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(Settings.model_fields)
    assert all(line == line.rstrip() for line in lines)


def test_in_a_narrow_terminal_no_name_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FIRSTVIEW_SWEEP_AFTER", "14d")
    assert run(as_json=False, changed=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {f"FIRSTVIEW_{name}".upper() for name in Settings.model_fields} == {
        line.split()[0] for line in lines if line.startswith("FIRSTVIEW_")
    }
    assert "FIRSTVIEW_SWEEP_AFTER  14d  (environment, default: 24h)" in lines


def test_where_nobody_has_set_anything_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(as_json=False, changed=True) == 0
    assert "at its default" in capsys.readouterr().out
