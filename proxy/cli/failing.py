"""What a command says of an error that ended it.

Belongs here: one sentence, and what helps where a server's own words say so. Must not know: any
command.
"""

from __future__ import annotations

from proxy.errors import CatalogUnavailable, FirstviewError

# ruff: noqa: PLC0415 - what judges a database imports one; nobody else is to wait for that


def told(error: FirstviewError) -> str:
    """The error in one line; of a catalog that is away also why, and what to mend.

    Nothing of a database's address is repeated.
    """
    if not isinstance(error, CatalogUnavailable) or error.__cause__ is None:
        return error.detail
    from proxy.cli.doctor.database_words import judge_error
    from proxy.cli.words import printable

    found = judge_error(error.__cause__)
    return printable(f"{error.detail.removesuffix('.')}: {found.seen}: {found.advice}")
