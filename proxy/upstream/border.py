"""The border at which the exceptions of aiohttp, ssl, the resolver and yarl become ours.

Belongs here: the one table of what stands for what. Must not know: what was being asked.
"""

from __future__ import annotations

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from proxy.errors import SourceError, SourceTimeout, SourceUnavailable, SourceUntrusted
from proxy.upstream.session import PrivateAddress

FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)
"""What aiohttp, ssl, the resolver and yarl raise; TimeoutError is an OSError."""


def translate(error: BaseException) -> SourceError:
    """Return our error for one of FOREIGN."""
    if isinstance(error, TimeoutError):
        return SourceTimeout()
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, PrivateAddress):
            return SourceUntrusted("The clip's source is at an address that is not public.")
        return SourceUnavailable("The clip's source cannot be reached.")
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        # InvalidURL and its like; also UnicodeError, from a name that is none.
        return SourceUntrusted("The clip's address cannot be read.")
    return SourceUnavailable()


def broken(error: BaseException) -> SourceError:
    """Return our error for one of FOREIGN that came in the middle of a body."""
    if isinstance(error, TimeoutError):
        return SourceTimeout("The clip's source stopped sending.")
    return SourceUnavailable("The clip's source broke off in the middle of the clip.")
