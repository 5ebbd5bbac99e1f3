"""An S3 server for one run of the benchmarks, thrown away at the end.

Belongs here: starting it, a bucket and keys, presigned addresses. Must not know: scenarios.

It is ministack, in a virtual environment of its own (`make setup`); it holds objects in memory and
checks signatures. It is slower than a real one is at its own end of the wire, which is why only
what is added to its own time is measured.
"""

from __future__ import annotations

import contextlib
import os
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config

from bench.asks import Ask
from bench.processes import free_port, started
from bench.server import Server

PROGRAM = Path(__file__).parents[1] / ".venv-s3" / "bin" / "ministack"
_BUCKET = "clips"
_KEY = "test"
_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket on a running server."""

    server: Server
    client: Any

    @property
    def settings(self) -> dict[str, str]:
        """What firstview needs to know of it."""
        return {
            "FIRSTVIEW_BUCKET_URL": f"s3://{_BUCKET}",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.server.port}",
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_REGION": _REGION,
        }

    def ask(self, key: str) -> Ask:
        """Ask for an object by a presigned address."""
        url = self.client.generate_presigned_url(
            "get_object", Params={"Bucket": _BUCKET, "Key": key}, ExpiresIn=3600
        )
        parts = urlsplit(url)
        return Ask(f"{parts.path}?{parts.query}", host=parts.netloc)


@contextlib.contextmanager
def bucket(home: Path, cores: frozenset[int]) -> Iterator[Bucket]:
    """Run a server on these cores, with an empty bucket."""
    home.mkdir()
    port = free_port()
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(home),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SERVICES": "s3,iam,sts",
        "AUTH": "true",
    }
    address = f"http://127.0.0.1:{port}"
    with started([str(PROGRAM)], cores, home / "log", (port,), environment) as pid:
        _wait_healthy(f"{address}/_ministack/health")
        client: Any = botocore.session.Session().create_client(
            "s3",
            region_name=_REGION,
            endpoint_url=address,
            aws_access_key_id=_KEY,
            aws_secret_access_key=_KEY,
            config=Config(signature_version="s3v4"),
        )
        client.create_bucket(Bucket=_BUCKET)
        try:
            yield Bucket(Server("direct", port, pid), client)
        finally:
            client.close()


def _wait_healthy(address: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{address} does not answer")
