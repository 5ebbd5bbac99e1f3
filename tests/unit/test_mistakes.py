"""What is said of settings that are wrong: every mistake, once, and how to mend it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy import settings
from proxy.errors import SettingsError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mistakes() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings.load()
    return caught.value.detail.splitlines()


def test_every_kind_of_mistake_is_listed_in_one_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("FIRSTVIEW_MAX_FILL=3\n%%%\nFIRSTVIEW_JOB_BACKOFF=2h\n")
    monkeypatch.setenv("FIRSTVIEW_FACTS_TTL", "1y")  # a unit that there is not
    monkeypatch.setenv("FIRSTVIEW_MAX_VIEWERS", "0")  # out of range
    monkeypatch.setenv("FIRSTVIEW_KEEP_PROMPTS", "maybe")  # neither true nor false
    monkeypatch.setenv("FIRSTVIEW_ADMIN_LISTEN", "127.0.0.1:8080")  # contradicts the other
    monkeypatch.setenv("FIRSTVIEW_PUBLIC_URL", "cdn.example.com")  # a rule of its own
    said = "\n".join(mistakes())
    for name, mend in {
        "FIRSTVIEW_FACTS_TTL": "24h",
        "FIRSTVIEW_MAX_VIEWERS": "write 1 or more",
        "FIRSTVIEW_KEEP_PROMPTS": "write true or false",
        "FIRSTVIEW_ADMIN_LISTEN": "a port of its own",
        "FIRSTVIEW_PUBLIC_URL": "https://",
        "FIRSTVIEW_JOB_BACKOFF": "FIRSTVIEW_JOB_BACKOFF_MAX",
        "FIRSTVIEW_MAX_FILL": "is it FIRSTVIEW_MAX_FILLS?",
        ".env, line 2": "NAME=value",
    }.items():
        [line] = [line for line in said.splitlines() if line.startswith(name)]
        assert mend in line
    assert len(said.splitlines()) == 8


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("MAX_FILLS", "many", "a whole number"),
        ("MAX_FILLS", "", "a whole number"),
        ("BUCKET_LOOKUP_RATE", "0", "more than 0"),
        ("BUCKET_LOOKUP_RATE", "fast", "a number"),
        ("UPSTREAM_EXPIRES_AFTER", "999999999d", "182625d or less"),
        ("WORKERS", "0", "1 to 96"),
        ("SINGLE_PUT_MAX", "6GiB", "at most 5GiB"),
        ("PART_SIZE", "1MiB", "at least 5MiB"),
        ("MAX_LINE_BYTES", "1MiB", "FIRSTVIEW_MAX_HEADER_BYTES"),
        ("BUCKET_RETRY_WAIT", "1h", "FIRSTVIEW_BUCKET_RETRY_MAX_WAIT"),
        ("CACHE_CONTROL", "public\nX-Injected: 1", "one line"),
        ("CORS_ORIGIN", "https://ex\u00e4mple.com", "plain ASCII"),
        ("UPSTREAM_HOSTS", "https://fal.media", "its host alone"),
        ("UPSTREAM_HOSTS", "*", "name the hosts"),
        ("UPSTREAM_HOSTS", " , ", "at least one host"),
        ("UPSTREAM_HOSTS", "fal.media:443", "write fal.media, *.fal.media"),
        ("UPSTREAM_HOSTS", "fal..media", "write fal.media, *.fal.media"),
        ("UPSTREAM_HOSTS", "0x7f.1", "in disguise"),
        ("UPSTREAM_HOSTS", "*.192.0.2.1", "no names below"),
        ("PUBLIC_URL", "https://cdn.example.com/?a=b", "without a query"),
        ("PUBLIC_URL", "https://", "https://cdn.example.com"),
        ("LISTEN", "8080", "host:port"),
        ("LISTEN", '":8080"', "host:port"),
        ("DATA_DIR", "", "its whole path"),
        ("DATA_DIR", "~/data", "its whole path"),
        ("DATA_DIR", '"/data"', "take them away"),
        ("FAL_KEY", "'s3cret'", "take them away"),
        ("DATABASE_URL", "sqlite:///", "a file"),
        ("DATABASE_URL", "sqlite://:memory:", "a file"),
        ("DATABASE_URL", "postgresql://me:s3@cret@db/x", "percent-encode"),
        ("DATABASE_URL", "postgresql://me:s3/cret@db:5432/x", "percent-encode"),
    ],
)
def test_a_mistake_names_the_setting_and_the_mend(
    name: str, value: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FIRSTVIEW_{name}", value)
    [line] = mistakes()
    assert line.startswith(f"FIRSTVIEW_{name}")
    assert mend in line


def test_wrong_hosts_are_listed_with_the_other_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTVIEW_UPSTREAM_HOSTS", "fal media,fal.media,fal.media:443")
    monkeypatch.setenv("FIRSTVIEW_MAX_FILLS", "0")
    monkeypatch.setenv("FIRSTVIEW_LISTN", ":1")
    said = mistakes()
    assert len(said) == 4
    assert sum("'fal media'" in line or "'fal.media:443'" in line for line in said) == 2


def test_listeners_may_share_a_port_on_different_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FIRSTVIEW_LISTEN", "192.0.2.1:8080")
    monkeypatch.setenv("FIRSTVIEW_ADMIN_LISTEN", "127.0.0.1:8080")
    settings.load()
    monkeypatch.setenv("FIRSTVIEW_LISTEN", "[::]:8080")
    assert "FIRSTVIEW_ADMIN_LISTEN" in mistakes()[0]


def test_a_wrong_setting_is_not_also_said_to_contradict_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FIRSTVIEW_JOB_BACKOFF_MAX", "soon")
    monkeypatch.setenv("FIRSTVIEW_JOB_BACKOFF", "2h")  # longer than the default of the other
    [line] = mistakes()
    assert line.startswith("FIRSTVIEW_JOB_BACKOFF_MAX: 'soon'")


def test_no_secret_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTVIEW_DATABASE_URL", "mysql://me:s3cret@db/x")
    monkeypatch.setenv("FIRSTVIEW_FAL_KEY", "s3cret")
    monkeypatch.setenv("FIRSTVIEW_ADMIN_TOKENS", "s3cret")
    monkeypatch.setenv("FIRSTVIEW_MAX_FILLS", "0")
    assert "s3cret" not in "".join(mistakes())


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FIRSTVIEW_CACHE_MAX_SIZE", "is it FIRSTVIEW_CACHE_MAX_BYTES?"),
        ("FIRSTVIEW_BUCKET", "is it FIRSTVIEW_BUCKET_"),
        ("firstview_listn", "is it FIRSTVIEW_LISTEN?"),
        ("FIRSTVIEW_QQQQQQ", "`firstview config`"),
    ],
)
def test_a_name_that_nobody_reads_stops_the_start(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    [line] = mistakes()
    assert line.startswith(f"{name}: there is no such setting in this firstview (environment)")
    assert meant in line


def test_what_kubernetes_says_of_a_service_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *("FIRSTVIEW_SERVICE_HOST", "FIRSTVIEW_SERVICE_PORT", "FIRSTVIEW_SERVICE_PORT_HTTP"),
        *("FIRSTVIEW_PORT", "FIRSTVIEW_PORT_8080_TCP", "FIRSTVIEW_PORT_8080_TCP_ADDR"),
        *("FIRSTVIEW_ADMIN_SERVICE_HOST", "FIRSTVIEW_ADMIN_PORT_8081_TCP_PROTO"),
    ):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8080")
    settings.load()


def test_other_programs_names_and_any_spelling_of_ours_are_fine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FIRSTVIEWER", "1")
    monkeypatch.setenv("firstview_max_fills", "7")
    assert settings.load().max_fills == 7


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"FIRSTVIEW_LISTEN=:1\n\xff\xfe", ".env: is not text in UTF-8"),
        (b"\xef\xbb\xbfFIRSTVIEW_LISTEN=:1\n", ".env: begins with a byte order mark"),
        (b"# fine\nFIRSTVIEW_LISTEN\n", ".env, line 2: FIRSTVIEW_LISTEN has no value"),
        (b"\n\nFIRSTVIEW_LISTEN: :1\n", ".env, line 3: is no setting"),
        (b"FIRSTVIEW_LISTN=:1\n", "FIRSTVIEW_LISTN: there is no such setting"),
    ],
)
def test_a_file_that_cannot_be_read_as_it_was_meant_is_a_mistake(
    folder: Path, content: bytes, line: str
) -> None:
    (folder / ".env").write_bytes(content)
    assert any(said.startswith(line) for said in mistakes())


def test_a_file_that_the_system_does_not_give_is_a_mistake(folder: Path) -> None:
    # Reading one's own memory at 0 fails for root too, whom no mode keeps out.
    (folder / ".env").symlink_to("/proc/self/mem")
    [line] = mistakes()
    assert re.match(r"\.env: cannot be read \(.+\): let the user", line)


def test_a_file_without_mistakes_is_read(folder: Path) -> None:
    (folder / ".env").write_text("# mine\nexport FIRSTVIEW_MAX_FILLS=7\nAWS_REGION=auto\n")
    assert settings.load().max_fills == 7
