"""What makes two prompts the same prompt, and its hash.

Belongs here: the normal form. Must not know: whether the owner wants prompts kept.
"""

from __future__ import annotations

import hashlib
import unicodedata


def normalise(prompt: str) -> str:
    """Bring a prompt to its normal form: Unicode NFC, runs of whitespace one space, no ends."""
    return " ".join(unicodedata.normalize("NFC", prompt).split())


def prompt_hash(prompt: str) -> str:
    """SHA-256 of the normal form's UTF-8, 64 lower-case hex digits."""
    return hashlib.sha256(normalise(prompt).encode()).hexdigest()
