"""What a database's address says, read without ever repeating it: it may hold a password.

Belongs here: checking and rewriting addresses. Must not know: how one is connected to.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from proxy.errors import SettingsError

# What libpq understands in a URL and asyncpg would send to the server as a setting of its own.
_LIBPQ_ONLY: Final = frozenset(
    {"channel_binding", "connect_timeout", "gssencmode", "keepalives", "keepalives_idle"}
    | {"keepalives_interval", "keepalives_count", "tcp_user_timeout"}
)


def sqlite_path(url: str) -> str:
    """The file that `sqlite:///path` names; raises SettingsError if it names none."""
    path = url.removeprefix("sqlite:///")
    if path in {url, "", ":memory:"}:
        raise SettingsError("FIRSTVIEW_DATABASE_URL must name a file, as in sqlite:///path")
    return path


def for_asyncpg(url: str) -> str:
    """Check a PostgreSQL URL, and drop what only libpq understands.

    Raises SettingsError for what is no such URL.
    """
    try:
        parts = urlsplit(url)
        # A password with a bare "/" or "@" ends up as port or host, and in others' messages.
        if parts.netloc.count("@") > 1 or (parts.port or 0) < 0:
            raise ValueError
        query = parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise SettingsError(
            "FIRSTVIEW_DATABASE_URL is not a PostgreSQL address: percent-encode special"
            " characters in its user and password"
        ) from None
    kept = [(name, value) for name, value in query if name not in _LIBPQ_ONLY]
    if "application_name" not in dict(kept):
        kept.append(("application_name", "firstview"))
    return urlunsplit(parts._replace(query=urlencode(kept)))
