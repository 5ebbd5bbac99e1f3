"""Signed links: which hold, which do not, and that telling them apart costs the same."""

from __future__ import annotations

import hmac
import math
import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.secret_lists import NamedKey
from proxy.security import links as module
from proxy.security.links import AHEAD, Links, without_token

NOW = 1_795_300_000
LIFE = 3600
PATH = "/videos/clip.mp4"
NEW, OLD = (
    NamedKey("new", b"a new secret of some length"),
    NamedKey("old", b"the old secret it was"),
)
LINKS = Links([NEW, OLD], LIFE)
STRANGER = Links([NamedKey("x", b"a stranger's own secret")], LIFE)
ARABIC = {ord(str(digit)): 0x660 + digit for digit in range(10)}


def query_of(path: str) -> str:
    return path.partition("?")[2]


def holds(path: str, now: float = NOW, links: Links = LINKS) -> bool:
    asked, _, query = path.partition("?")
    return links.holds(asked, query, now)


# --- what others have computed ------------------------------------------------------------------


def test_the_mac_is_that_of_rfc_4231_test_case_2() -> None:
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert module._mac(b"Jefe", "what do ya want for nothing?").hex() == digest


@pytest.mark.parametrize(
    ("path", "token"),
    [
        (PATH, "bVJl+AmsN7kvemW2UOpVCSF/kDKk1GYuzrNCjEC3CRE="),
        (f"{PATH}?download=a", "C05ZdeIRDQOpN5ryEVk+viLEatEGhNzULqCIYnP3ST0="),
    ],
)
def test_a_link_is_what_openssl_computes(path: str, token: str) -> None:
    # printf '%s' "${path}1795300000" | openssl dgst -sha256 -hmac 'a new secret of some length' \
    #     -binary | base64
    made = LINKS.sign(path, NOW)
    assert unquote(made.path) == f"{path}{'&' if '?' in path else '?'}verify={NOW}-{token}"


# --- what holds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("url_safe", [False, True])
@pytest.mark.parametrize("key", ["new", "old", None])
def test_a_link_holds_from_now_until_its_life_is_over(key: str | None, url_safe: bool) -> None:
    made = LINKS.sign(PATH, NOW, key=key, url_safe=url_safe)
    assert made.key == (key or "new")
    assert made.expires == NOW + LIFE
    assert holds(made.path, NOW - AHEAD)
    assert holds(made.path, NOW + LIFE - 0.001)
    assert not holds(made.path, NOW + LIFE)
    assert not holds(made.path, NOW - AHEAD - 1)


@given(life=st.integers(1, LIFE), late=st.integers(0, 2 * LIFE), url_safe=st.booleans())
def test_a_shorter_life_is_an_earlier_time(life: int, late: int, url_safe: bool) -> None:
    made = LINKS.sign(PATH, NOW, life=life, url_safe=url_safe)
    assert made.expires == NOW + life
    assert f"verify={NOW - LIFE + life}-" in made.path
    assert holds(made.path, NOW + late) == (late < life)


@given(
    name=st.text(string.ascii_letters + string.digits, min_size=1, max_size=128),
    more=st.text(string.ascii_letters + "=&%20~._-", max_size=30),
    url_safe=st.booleans(),
)
def test_what_was_signed_holds_for_nothing_else(name: str, more: str, url_safe: bool) -> None:
    path = f"/videos/{name}.mp4" + (f"?{more}" if more and "verify" not in unquote(more) else "")
    made = LINKS.sign(path, NOW, url_safe=url_safe).path
    assert holds(made)
    assert not LINKS.holds("/videos/other_.mp4", query_of(made), NOW)
    assert not Links([OLD], LIFE).holds(made.partition("?")[0], query_of(made), NOW)


def test_programs_may_tidy_up_what_the_alphabets_differ_in() -> None:
    for number in range(200):  # until a MAC has each of the characters
        made = LINKS.sign(f"/videos/{number}.mp4", NOW).path
        for spelt in (
            made.replace("%2F", "/"),
            made.replace("%3D", "="),
            made.replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d"),
            made.replace("%2B", "-").replace("%2F", "_").replace("%3D", ""),
        ):
            assert holds(spelt), spelt


BAD: dict[str, Callable[[str], str]] = {
    "nothing": lambda link: link.partition("?")[0],
    "no token": lambda link: f"{PATH}?verify=",
    "no MAC": lambda link: f"{PATH}?verify={NOW}-",
    "no time": lambda link: link.replace(f"{NOW}-", ""),
    "another time": lambda link: link.replace(str(NOW), str(NOW + 1)),
    "a longer time": lambda link: link.replace(str(NOW), f"0{NOW}"),
    "other digits": lambda link: link.replace(str(NOW), str(NOW).translate(ARABIC)),
    "another path": lambda link: link.replace("clip", "clop"),
    "a path encoded": lambda link: link.replace("clip", "%63lip"),
    "encoded twice": lambda link: f"{PATH}?verify={quote(query_of(link)[7:], safe='')}",
    "a letter encoded": lambda link: link[:-10] + f"%{ord(link[-10]):02X}" + link[-9:],
    "letters of another case": lambda link: f"{PATH}?verify={query_of(link)[7:].swapcase()}",
    "a name encoded": lambda link: link.replace("verify", "%76erify"),
    "a name of another case": lambda link: link.replace("verify", "Verify"),
    "twice": lambda link: f"{link}&{query_of(link)}",
    "twice, the second bad": lambda link: f"{link}&verify=x",
    "twice, the first bad": lambda link: f"{PATH}?verify=x&{query_of(link)}",
    "twice, one encoded": lambda link: f"{PATH}?%76erify=x&{query_of(link)}",
    "not last": lambda link: f"{link}&download=a",
    "not last, empty": lambda link: f"{link}&",
    "more before it": lambda link: f"{PATH}?download=a&{query_of(link)}",
    "an empty parameter before it": lambda link: f"{PATH}?&{query_of(link)}",
    "another separator": lambda link: link.replace("?verify", "?;verify"),
    "a blank behind": lambda link: f"{link} ",
    "padding twice": lambda link: f"{link}%3D",
    "cut": lambda link: link[:-5],
    "long": lambda link: f"{PATH}?verify={NOW}-{'A' * 100_000}",
    "half a character": lambda link: f"{PATH}?verify={NOW}-\udcff{link[-30:]}",
    "of a stranger": lambda link: STRANGER.sign(PATH, NOW).path,
    "expired": lambda link: LINKS.sign(PATH, NOW - LIFE).path,
    "from the future": lambda link: LINKS.sign(PATH, NOW + AHEAD + 1).path,
}  # fmt: skip


@pytest.mark.parametrize("how", BAD)
def test_a_link_that_was_changed_does_not_hold(how: str) -> None:
    link = LINKS.sign(PATH, NOW).path
    assert holds(link)
    changed = BAD[how](link)
    assert changed != link
    assert not holds(changed)


@pytest.mark.parametrize("how", ["as it is", *BAD])
def test_every_link_costs_the_same_work(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    link = LINKS.sign(PATH, NOW).path
    asked = BAD[how](link) if how in BAD else link
    computed: list[int] = []
    compared: list[int] = []
    digest, compare = hmac.digest, hmac.compare_digest

    def computing(*given: Any) -> bytes:
        computed.append(1)
        return digest(*given)

    def comparing(*given: Any) -> bool:
        compared.append(1)
        return compare(*given)

    monkeypatch.setattr(hmac, "digest", computing)
    monkeypatch.setattr(hmac, "compare_digest", comparing)
    LINKS.holds(PATH, query_of(asked), NOW)
    assert (len(computed), len(compared)) == (2, 2)  # each key, whatever came


@given(query=st.binary(max_size=100), token=st.booleans())
def test_no_query_makes_an_error(query: bytes, token: bool) -> None:
    text = query.decode("utf-8", "surrogateescape")  # as the parser gives what came
    assert not LINKS.holds(PATH, f"verify={NOW}-{text}" if token else text, NOW)


@given(data=st.data())
def test_no_character_of_a_token_may_change(data: st.DataObject) -> None:
    link = LINKS.sign(PATH, NOW, url_safe=True).path
    place = data.draw(st.integers(len(PATH), len(link) - 1))
    other = data.draw(st.characters(codec="ascii", exclude_characters=link[place] + "+/-_"))
    changed = link[:place] + other + link[place + 1 :]
    assert not LINKS.holds(PATH, changed[len(PATH) + 1 :], NOW) or link[place] == "?"


def test_without_keys_nothing_holds() -> None:
    nobody = Links([], LIFE)
    assert not holds(LINKS.sign(PATH, NOW).path, links=nobody)
    assert not holds(Links([NamedKey("none", b"none")], LIFE).sign(PATH, NOW).path, links=nobody)


# --- what cannot be signed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("videos/clip.mp4", {}),
        ("/videos/a clip.mp4", {}),
        ("/videos/ä.mp4", {}),
        ("/videos/clip.mp4#t=1", {}),
        ("/videos/clip.mp4?verify=x", {}),
        ("/videos/clip.mp4?a=b&%76erify=x", {}),
        (PATH, {"life": 0}),
        (PATH, {"life": 0.9}),
        (PATH, {"life": math.inf}),  # as parse_duration reads many a digit
        (PATH, {"life": math.nan}),
        (PATH, {"life": LIFE + 1}),
        (PATH, {"key": "other"}),
    ],
)
def test_what_no_link_can_be_made_of_is_refused(path: str, more: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        LINKS.sign(path, NOW, **more)  # type: ignore[arg-type]


def test_signing_without_a_key_names_the_setting() -> None:
    with pytest.raises(BadRequest, match="FIRSTVIEW_SIGNING_KEYS"):
        Links([], LIFE).sign(PATH, NOW)


@pytest.mark.parametrize(
    "named",
    [
        *("?verify=", "?download=a&verify=", "&verify=", "%3Fverify=", "%3fverify%3d"),
        *("%3Fverify%3D", "%253Fverify%253D", "/verify=", "?Verify="),
    ],
)
def test_no_log_shows_a_token(named: str) -> None:
    assert without_token(f"{PATH}{named}1795300000-abc") == f"{PATH}{named}…"
    assert without_token(f"{PATH}?a=b") == f"{PATH}?a=b"
