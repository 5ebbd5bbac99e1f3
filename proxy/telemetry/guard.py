"""The last guard: what no line of the log may hold, whoever wrote it.

Belongs here: finding secrets in what is about to be written, and hiding them. Must not know: what
is logged, or why. Nothing should ever reach it: whoever logs leaves secrets out.

Most lines hold nothing that even looks like a secret; they are passed on after one glance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus

from structlog.typing import EventDict

HIDDEN: Final = "[hidden]"
SHORTEST: Final = 6
"""Characters of a secret that is looked for by itself: shorter ones are parts of common words."""

_HINTS: Final = (
    *("://", "verify", "token", "secret", "passw", "pwd", "auth", "cookie", "bearer", "basic"),
    *("key", "sig", "amz", "credential", "session", "x-firstview-origin"),
)
"""Without one of them, in lower case, no pattern below can match."""

_NUMBERS: Final = frozenset((bool, int, float, type(None)))

_END: Final = r"\s\"'<>\\`|"
"""What ends an address or a value in running text, in a trace and in JSON that is quoted there."""

_ADDRESS: Final = re.compile(
    rf"://(?P<user>[^{_END}]*@)?(?P<path>[^?#{_END}]*)(?P<more>[?#][^{_END}]*)?"
)
_LONG_NAMES: Final = r"verify|token|signature|passw(?:or)?d|secret|credential"
_SHORT_NAMES: Final = (
    r"(?<![a-z0-9])(?:sig|auth|pwd|session)"
    r"|(?:api|fal|access|secret|private|signing|encryption)[_-]?key(?:[_-]?id)?"
)
# Long names may be a part of longer ones, such as X-Amz-Security-Token or accessToken; all may be
# followed by more, and stand in front of a value as a query, a form, JSON or Python has it.
_PARAMETER: Final = re.compile(
    rf"(?P<name>(?:{_LONG_NAMES}|{_SHORT_NAMES})[a-z0-9_-]{{0,32}}"
    rf"(?:=|%3D|[\"']:[ ]?[\"']))(?P<value>[^&;,{_END}]+)",
    re.IGNORECASE,
)
_FIELD: Final = re.compile(
    r"(?P<name>(?:authorization|cookie|x-firstview-origin|x-api-key)"
    r"[\"']?[ \t]{0,4}[:,][ \t]{0,4}(?:b?[\"'])?)(?P<value>[^\"'\r\n\\]+)",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(
    rf"(?P<name>\b(?:bearer|basic)[ \t]+)(?P<value>[^{_END},;]{{8,}})", re.IGNORECASE
)
_FAL_KEY: Final = re.compile(
    rf"(?P<name>\bkey[ \t]+)(?P<value>[^:/{_END}]{{4,}}:[^:/{_END}]{{4,}})", re.IGNORECASE
)
_PLAIN_WORD: Final = re.compile(r"[A-Za-z]?[a-z]+\Z")
_TELLING_NAME: Final = re.compile(
    rf"(?:{_LONG_NAMES}|{_SHORT_NAMES}|authorization|cookie|x-firstview-origin)s?\Z",
    re.IGNORECASE,
)


class Guard:
    """A structlog processor; it comes last before an entry is rendered, traces included."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Take what is known to be secret; patterns find the rest."""
        forms = {
            form
            for secret in secrets
            if len(secret) >= SHORTEST
            for form in (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1])
        }
        # Longer ones first: one may be a part of another.
        self._secrets = sorted(forms, key=len, reverse=True)

    def __call__(self, _logger: object, _method: str, entry: EventDict) -> EventDict:
        """Hide what must not be written, in names and values at any depth."""
        if not self._is_harmless(entry):
            for name in list(entry):
                value = entry.pop(name)
                entry[self.text(name)] = self._value(name, value)
        return entry

    def _is_harmless(self, entry: EventDict) -> bool:
        """Glance at an entry: only words and numbers, and none that may be a part of a secret."""
        words = [*entry]
        for value in entry.values():
            kind = type(value)
            if kind is str:
                words.append(value)
            elif kind not in _NUMBERS:
                return False
        line = " ".join(words)
        if not line.isprintable() or any(map(line.__contains__, self._secrets)):
            return False
        return not any(map(line.lower().__contains__, _HINTS))

    def _value(self, name: str, value: Any) -> Any:  # noqa: ANN401 - whatever was logged
        if value is None or isinstance(value, bool | int | float):
            return value
        if _TELLING_NAME.search(name):
            return HIDDEN if value else ""
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._value(str(key), of) for key, of in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(name, of) for of in value]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "backslashreplace")
        return self.text(str(value), lines=name == "exception")

    def text(self, text: str, *, lines: bool = False) -> str:
        """Hide what is secret in a text, and spell out what a terminal would obey.

        `lines`: it has several, which stay apart.
        """
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        if "://" in text:
            text = _ADDRESS.sub(_bare, text)
        for pattern, replace in _PATTERNS:
            text = pattern.sub(replace, text)
        return text if text.isprintable() else _spelled(text, lines=lines)


def _bare(found: re.Match[str]) -> str:
    """An address without who asks and without its query: scheme, host and path."""
    user = f"{HIDDEN}@" if found["user"] else ""
    more = f"?{HIDDEN}" if found["more"] else ""
    return f"://{user}{found['path']}{more}"


def _hide(found: re.Match[str]) -> str:
    return f"{found['name']}{HIDDEN}"


def _hide_unless_a_word(found: re.Match[str]) -> str:
    """`Basic authentication` is prose, where `Basic dXNlcjpw` is not."""
    return found[0] if _PLAIN_WORD.match(found["value"]) else _hide(found)


_PATTERNS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    (_FIELD, _hide),
    (_PARAMETER, _hide),
    (_SCHEME, _hide_unless_a_word),
    (_FAL_KEY, _hide),
)


def _spelled(text: str, *, lines: bool) -> str:
    """Write controls and half characters as escapes: neither JSON nor a terminal takes them."""
    kept = "\n" if lines else ""
    return "".join(
        char
        if char in kept or char.isprintable()
        else char.encode("unicode_escape", "backslashreplace").decode("ascii")
        for char in text
    )
