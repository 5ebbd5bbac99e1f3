"""What a command's exit code says where it is not 0.

Belongs here: the codes that mean the same for all commands. Must not know: any command.
"""

from __future__ import annotations

from typing import Final

PARTLY: Final = 1
"""Some of it could not be done, or is not there."""
WRONG: Final = 2
"""What was typed or set makes no sense, or nothing of it does."""
FAILED: Final = 3
"""Something else is in the way: the bucket, the catalog, another process."""
