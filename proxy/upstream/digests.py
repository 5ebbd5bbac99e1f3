"""The MD5 that a source may give of a clip, in the five ways that sources write it.

Belongs here: reading one out of a reply's fields. Must not know: what it is compared with.
"""

from __future__ import annotations

import base64
import binascii
import re

from multidict import MultiMapping

_MD5_BYTES = 16
_STRUCTURED = re.compile(r"\bmd5=:([A-Za-z0-9+/=]+):")
_PLAIN = re.compile(r"(?:^|,)\s*md5=([A-Za-z0-9+/=]+)\s*(?=,|$)", re.IGNORECASE)


def md5_of(fields: MultiMapping[str], *, whole: bool) -> bytes | None:
    """Return the raw 16 bytes of the whole clip's MD5, or None when there is none to be had.

    Reads `Content-MD5` (RFC 1864), `Repr-Digest` (RFC 9530), `Digest` (RFC 3230) and Google's
    `x-goog-hash`. With `whole` False (a 206) only the last is believed: servers disagree about
    what the others cover in a partial reply. What is not well formed is as good as absent.
    """
    values = [_PLAIN.search(",".join(fields.getall("X-Goog-Hash", [])))]
    if whole:
        plain = fields.get("Content-MD5")
        if plain is not None and (digest := _decode(plain.strip())) is not None:
            return digest
        values.append(_STRUCTURED.search(",".join(fields.getall("Repr-Digest", []))))
        values.append(_PLAIN.search(",".join(fields.getall("Digest", []))))
    for match in values:
        if match is not None and (digest := _decode(match[1])) is not None:
            return digest
    return None


def _decode(text: str) -> bytes | None:
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == _MD5_BYTES else None
