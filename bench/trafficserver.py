"""Apache Traffic Server as a peer.

Belongs here: how it is set up, and why that is fair. Must not know: scenarios.

As many threads for the network as the others have workers, and its own threads for the disk; a
memory cache as large as Varnish's, which takes whole clips; no log; readers may follow a writer,
so that concurrent misses of one clip are one fetch. It reads from its cache rather than have the
kernel send from the page cache: that is how it is built.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.processes import free_port, started
from bench.server import Server

_RUN_ROOT = """\
prefix: {home}
exec_prefix: {home}
bindir: /usr/bin
sbindir: /usr/sbin
sysconfdir: {home}/etc
datadir: {home}/data
includedir: /usr/include
libdir: /usr/lib/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: {home}/run
runtimedir: {home}/run
logdir: {home}/log
mandir: /usr/share/man
infodir: /usr/share/info
cachedir: {home}/cache
"""

_RECORDS = """\
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.crash_log_helper STRING NULL
CONFIG proxy.config.http.server_ports STRING {port}:ip-in=127.0.0.1
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT {workers}
CONFIG proxy.config.exec_thread.affinity INT 0
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.task_threads INT 1
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.net.listen_backlog INT 4096
CONFIG proxy.config.net.connections_throttle INT 12000
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 600
CONFIG proxy.config.http.transaction_no_activity_timeout_in INT 120
CONFIG proxy.config.http.insert_response_via_str INT 0
CONFIG proxy.config.http.cache.required_headers INT 0
CONFIG proxy.config.http.cache.when_to_revalidate INT 3
CONFIG proxy.config.http.background_fill_completed_threshold FLOAT 0.0
CONFIG proxy.config.http.cache.max_open_read_retries INT 50
CONFIG proxy.config.http.cache.open_read_retry_time INT 10
CONFIG proxy.config.cache.enable_read_while_writer INT 1
CONFIG proxy.config.cache.agg_write_backlog INT 268435456
CONFIG proxy.config.cache.read_while_writer.max_retries INT 50
CONFIG proxy.config.cache.ram_cache.size INT 3221225472
CONFIG proxy.config.cache.ram_cache_cutoff INT 67108864
CONFIG proxy.config.url_remap.remap_required INT 1
"""

_DISK = "16G"
"""The file is sparse."""
_FOLDERS = ("etc", "data", "run", "log", "cache")


@contextlib.contextmanager
def cache(home: Path, upstream: int, cores: frozenset[int], workers: int) -> Iterator[Server]:
    """Run it."""
    port = free_port()
    for name in _FOLDERS:
        (home / name).mkdir(parents=True)
    etc, root = home / "etc", home / "runroot.yaml"
    root.write_text(_RUN_ROOT.format(home=home))
    (etc / "records.config").write_text(_RECORDS.format(port=port, workers=workers))
    (etc / "storage.config").write_text(f"{home}/cache {_DISK}\n")
    (etc / "hosting.config").touch()
    (etc / "remap.config").write_text(
        f"map http://127.0.0.1:{port}/videos/ http://127.0.0.1:{upstream}/files/\n"
        f"map http://bench/videos/ http://127.0.0.1:{upstream}/files/\n"
    )
    allow = Path("/etc/trafficserver/ip_allow.yaml")
    if allow.exists():
        shutil.copy(allow, etc)
    command = ["traffic_server", f"--run-root={root}"]
    with started(command, cores, home / "output.log", (port,)) as pid:
        yield Server("trafficserver", port, pid)
