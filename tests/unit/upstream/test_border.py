"""Every exception of the libraries below becomes one of ours."""

import inspect
import socket
import ssl
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions

from proxy.errors import SourceError, SourceTimeout, SourceUnavailable, SourceUntrusted
from proxy.upstream.border import FOREIGN, broken, translate
from proxy.upstream.session import PrivateAddress


def tree(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def bare(kind: type[BaseException], os_error: OSError | None = None) -> BaseException:
    """Make an exception of any kind without knowing what its constructor wants."""
    error = kind.__new__(kind)
    error._os_error = os_error or OSError()  # type: ignore[attr-defined]
    return error


CLIENT_TREE = sorted(set(tree(aiohttp.ClientError)), key=lambda kind: kind.__name__)
OTHERS = (*tree(http_exceptions.HttpProcessingError), *tree(ssl.SSLError), ConnectionResetError,
          socket.gaierror, TimeoutError, UnicodeError, UnicodeEncodeError, ValueError)  # fmt: skip


@pytest.mark.parametrize("kind", [*CLIENT_TREE, *OTHERS])
def test_every_exception_of_the_client_is_mapped(kind: type[BaseException]) -> None:
    assert issubclass(kind, FOREIGN)
    error = translate(bare(kind))
    if issubclass(kind, TimeoutError):
        expected: type[SourceError] = SourceTimeout
    elif issubclass(kind, ValueError) and not issubclass(kind, OSError):
        expected = SourceUntrusted
    else:
        expected = SourceUnavailable
    assert type(error) is expected
    assert type(broken(bare(kind))) in {SourceTimeout, SourceUnavailable}


def test_the_tree_that_is_walked_holds_all_that_aiohttp_names() -> None:
    named = {
        kind
        for name, kind in inspect.getmembers(client_exceptions, inspect.isclass)
        if name in client_exceptions.__all__ and not name.startswith("WS")  # no websockets here
    }
    assert len(named) > 20
    assert named <= set(CLIENT_TREE)


def test_a_private_address_is_told_from_an_unreachable_one() -> None:
    private = bare(aiohttp.ClientConnectorError, PrivateAddress("not a public address"))
    assert type(translate(private)) is SourceUntrusted
