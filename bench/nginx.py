"""The two nginx of the comparison: the peer, and the fake fal.media behind every server.

Belongs here: how nginx is set up, and why that is fair. Must not know: scenarios.

The peer is set up to be as fast as it can be: sendfile, as many workers as firstview has processes,
no access log, open files cached, keep-alive on both sides, buffers larger than the default's
eight pages. `tcp_nopush` is off: with it on, replies of 64 KiB wait 40 ms for an acknowledgement.
`proxy_cache_lock` makes it fetch a clip once, as firstview does. It does not sync
what it writes to the disk; firstview does. `/videos/` is the plain cache, `/sliced/` the same with
`slice`, which is nginx's own remedy for far seeks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bench.processes import free_port, started
from bench.server import Server

SLICED = "/sliced/"
"""Where the peer has the clips in slices of 1 MiB."""

_COMMON = """\
{user}
daemon off;
worker_processes {workers};
worker_rlimit_nofile 32768;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{
    worker_connections 16384;
    accept_mutex off;
}}
http {{
    access_log off;
    sendfile on;
    aio off;
    tcp_nopush off;
    tcp_nodelay on;
    keepalive_timeout 600;
    keepalive_requests 100000000;
    types {{ video/mp4 mp4; }}
    default_type application/octet-stream;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    open_file_cache max=12000 inactive=600s;
    open_file_cache_valid 600s;
"""

_UPSTREAM = """\
    log_format asked '$request_method $uri';
    map $rate $speed {{ default $rate; "" 0; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/files/(?<kind>[a-z0-9]+)(_(?<rate>[0-9]+m))?- {{
            access_log {home}/asked.log asked;
            limit_rate $speed;
            root {root};
            rewrite ^ /$kind.mp4 break;
        }}
        location = /jwks.json {{ root {root}; }}
    }}
}}
"""

_CACHE = """\
    proxy_cache_path {home}/cache levels=1:2 keys_zone=clips:16m max_size=64g inactive=1h
        use_temp_path=off;
    upstream fal {{
        server 127.0.0.1:{upstream};
        keepalive 256;
        keepalive_requests 100000000;
    }}
    proxy_http_version 1.1;
    proxy_cache clips;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 120s;
    proxy_cache_lock_age 120s;
    proxy_buffer_size 64k;
    proxy_buffers 16 64k;
    proxy_busy_buffers_size 128k;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /videos/ {{
            proxy_pass http://fal/files/;
            proxy_set_header Connection "";
            proxy_cache_valid 200 1h;
        }}
        location {sliced} {{
            slice 1m;
            proxy_pass http://fal/files/;
            proxy_set_header Connection "";
            proxy_set_header Range $slice_range;
            proxy_cache_key $uri$slice_range;
            proxy_cache_valid 200 206 1h;
        }}
    }}
}}
"""


def upstream_config(home: Path, port: int, root: Path) -> str:
    """The fake fal.media: `/files/<kind>-<id>.mp4` is the file `<kind>.mp4`, from the page cache.

    `/files/<kind>_<rate>m-<id>.mp4` is the same at that many MiB a second. Beside them fal's key
    set, where there is one.
    """
    return (_COMMON + _UPSTREAM).format(user=_user(), workers=1, home=home, port=port, root=root)


def cache_config(home: Path, port: int, upstream: int, workers: int) -> str:
    """The peer: `/videos/<name>.mp4` through `proxy_cache`, `/sliced/<name>.mp4` in slices."""
    return (_COMMON + _CACHE).format(
        user=_user(), workers=workers, home=home, port=port, upstream=upstream, sliced=SLICED
    )


@contextlib.contextmanager
def upstream(home: Path, files: Path, cores: frozenset[int]) -> Iterator[Server]:
    """Run the fake fal.media over a directory of files."""
    port = free_port()
    with _running(home, upstream_config(home, port, files), cores, port) as pid:
        yield Server("upstream", port, pid, prefix="/files/")


@contextlib.contextmanager
def cache(home: Path, upstream: int, cores: frozenset[int], workers: int) -> Iterator[Server]:
    """Run the peer."""
    port = free_port()
    with _running(home, cache_config(home, port, upstream, workers), cores, port) as pid:
        yield Server("nginx", port, pid)


@contextlib.contextmanager
def _running(home: Path, config: str, cores: frozenset[int], port: int) -> Iterator[int]:
    home.mkdir()
    path = home / "nginx.conf"
    path.write_text(config)
    command = ["nginx", "-p", str(home), "-e", str(home / "error.log"), "-c", str(path)]
    with started(command, cores, home / "output.log", (port,)) as pid:
        yield pid


def _user() -> str:
    # Only a master that is root may say so; its worker has to be able to write to `home`.
    return "user root;" if os.geteuid() == 0 else ""
