"""Cloudflare's rules language, as far as our rules are written in it.

Belongs here: whether a rule's expression is true of a request, by the vendor's description. Must
not know: which rules there are. https://developers.cloudflare.com/ruleset-engine/rules-language/
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>\d+)|(?P<word>[a-z_][a-z0-9_.]*)'
    r"|(?P<mark>[(){},]))"
)
_MESSAGE_MAC: Final = re.compile(r"(.*)(\d{10})-(.{43,})", re.DOTALL)


@dataclass(frozen=True)
class EdgeRequest:
    """What the edge knows of a request: its host, its path and query, and when it came."""

    uri: str
    host: str = "cdn.example.com"
    now: int = 1_800_000_000

    def field(self, name: str) -> Any:
        """A field's value; raises KeyError for one that does not exist."""
        path, _, query = self.uri.partition("?")
        return {
            "http.host": self.host,
            "http.request.uri": self.uri,
            "http.request.uri.path": path,
            "http.request.uri.query": query,
            "http.request.timestamp.sec": self.now,
        }[name]


def matches(expression: str, request: EdgeRequest) -> bool:
    """Whether the rule is for this request. Raises SyntaxError, or KeyError for unknown names."""
    rule = _Rule(expression, request)
    result = rule.either()
    rule.end()
    if result not in {True, False}:
        raise SyntaxError(f"{expression} is no condition")
    return bool(result)


def is_timed_hmac_valid_v0(
    key: str, message_mac: str, ttl: int, now: int, separator: int = 0, flags: str = ""
) -> bool:
    """Whether a token is good, in the words of its description: MessageMAC, ttl, separator."""
    found = _MESSAGE_MAC.fullmatch(message_mac)
    if found is None:
        return False
    before, stamp, mac = found.groups()
    message = before[: len(before) - separator] if separator else before
    right = hmac.digest(key.encode(), f"{message}{stamp}".encode(), "sha256")
    if "s" in flags:
        expected = base64.urlsafe_b64encode(right).rstrip(b"=").decode()
    else:
        expected, mac = base64.b64encode(right).decode(), unquote(mac)
    return mac == expected and now < int(stamp) + ttl


_FUNCTIONS: Final[dict[str, Callable[..., bool]]] = {
    "starts_with": str.startswith,
    "is_timed_hmac_valid_v0": is_timed_hmac_valid_v0,
}
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda left, right: left == right,
    "ne": lambda left, right: left != right,
    "in": lambda left, right: left in right,
    "contains": lambda left, right: right in left,
}


class _Rule:
    def __init__(self, text: str, request: EdgeRequest) -> None:
        self._tokens = self._split(text)
        self._request = request

    @staticmethod
    def _split(text: str) -> list[str]:
        tokens, at = [], 0
        text = text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise SyntaxError(f"not understood: {text[at:]}")
            tokens.append(found[0].strip())
            at = found.end()
        return tokens[::-1]

    def end(self) -> None:
        if self._tokens:
            raise SyntaxError(f"too much: {self._tokens[::-1]}")

    def _next(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def _take(self, wanted: str | None = None) -> str:
        token = self._next()
        if not token or (wanted is not None and token != wanted):
            raise SyntaxError(f"{token!r} where {wanted!r} was expected")
        return self._tokens.pop()

    def _takes(self, wanted: str) -> bool:
        if self._next() != wanted:
            return False
        self._take()
        return True

    def either(self) -> Any:
        result = self._both()
        while self._takes("or"):
            result = self._both() or result
        return result

    def _both(self) -> Any:
        result = self._simple()
        while self._takes("and"):
            result = self._simple() and result
        return result

    def _simple(self) -> Any:
        if self._takes("not"):
            return not self._simple()
        if self._takes("("):
            result = self.either()
            self._take(")")
            return result
        left = self._value()
        if self._next() in _OPERATORS:
            return _OPERATORS[self._take()](left, self._value())
        return left

    def _value(self) -> Any:
        token = self._take()
        if token == "{":
            items = []
            while not self._takes("}"):
                items.append(self._value())
            return items
        if token.startswith('"'):
            return re.sub(r"\\(.)", r"\1", token[1:-1])
        if token.isdigit():
            return int(token)
        if self._next() != "(":
            return self._request.field(token)
        self._take("(")
        arguments = [self._value()]
        while self._takes(","):
            arguments.append(self._value())
        self._take(")")
        return _FUNCTIONS[token](*arguments)
