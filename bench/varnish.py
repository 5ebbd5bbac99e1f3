"""Varnish as a peer.

Belongs here: how it is set up, and why that is fair. Must not know: scenarios.

As many pools of threads as the others have workers; clips in memory of its own, which is what
Varnish is best at; streaming while it fetches; and no log of requests in shared memory, as the
others write none. Concurrent misses of one clip are one fetch by its own nature.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.processes import free_port, started
from bench.server import Server

MEMORY = "3g"

_VCL = """\
vcl 4.1;
backend fal {{
    .host = "127.0.0.1";
    .port = "{upstream}";
    .first_byte_timeout = 60s;
}}
sub vcl_recv {{
    set req.http.host = "fal";
    set req.url = regsub(req.url, "^/videos/", "/files/");
    return (hash);
}}
sub vcl_backend_response {{
    set beresp.ttl = 1h;
    set beresp.grace = 0s;
    set beresp.do_stream = true;
}}
"""

_UNLOGGED = (
    "Begin End Link Timestamp VCL_call VCL_return Hit Length Storage TTL ReqAcct ReqStart "
    "ReqMethod ReqURL ReqProtocol ReqHeader ReqUnset RespProtocol RespStatus RespReason RespHeader "
    "RespUnset SessOpen SessClose"
)
"""What is said of each request in the log in shared memory."""

_PARAMETERS = {
    "thread_pool_min": "100",
    "thread_pool_max": "5000",
    "listen_depth": "4096",
    "timeout_idle": "600",
    "send_timeout": "600",
    "nuke_limit": "1000",
    "vsl_mask": ",".join(f"-{tag}" for tag in _UNLOGGED.split()),
}


@contextlib.contextmanager
def cache(home: Path, upstream: int, cores: frozenset[int], workers: int) -> Iterator[Server]:
    """Run it."""
    home.mkdir()
    port, vcl = free_port(), home / "default.vcl"
    vcl.write_text(_VCL.format(upstream=upstream))
    command = ["varnishd", "-F", "-n", str(home / "work"), "-f", str(vcl), "-j", "none"]
    command += ["-a", f"127.0.0.1:{port}", "-T", "none", "-s", f"malloc,{MEMORY}"]
    for name, value in {**_PARAMETERS, "thread_pools": str(workers)}.items():
        command += ["-p", f"{name}={value}"]
    with started(command, cores, home / "output.log", (port,)) as pid:
        yield Server("varnish", port, pid)
