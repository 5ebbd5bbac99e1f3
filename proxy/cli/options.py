"""Options that several commands have.

Belongs here: their names and help. Must not know: any command.
"""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
