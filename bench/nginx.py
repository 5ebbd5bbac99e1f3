"""The two nginx of the comparison, as configuration text.

Belongs here: how nginx is set up, and why that is fair. Must not know: processes, scenarios.

The peer is set up to be as fast as it can be: sendfile, one worker as firstview has one process,
no access log, open files cached, keep-alive on both sides, buffers larger than the default's
eight pages. `tcp_nopush` is off: with it on, replies of 64 KiB wait 40 ms for an acknowledgement.
`proxy_cache_lock` makes it fetch a clip once, as firstview does. It does not sync
what it writes to the disk; firstview does.
"""

from __future__ import annotations

import os
from pathlib import Path

_COMMON = """\
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{
    worker_connections 8192;
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
    open_file_cache max=4096 inactive=600s;
    open_file_cache_valid 600s;
"""

_UPSTREAM = """\
    log_format asked '$request_method $uri';
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location ~ ^/files/(?<kind>[a-z0-9]+)- {{
            access_log {home}/asked.log asked;
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
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /videos/ {{
            proxy_pass http://fal/files/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache clips;
            proxy_cache_valid 200 1h;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 120s;
            proxy_cache_lock_age 120s;
            proxy_buffer_size 64k;
            proxy_buffers 16 64k;
            proxy_busy_buffers_size 128k;
            add_header X-Cache $upstream_cache_status;
        }}
    }}
}}
"""


def upstream_config(home: Path, port: int, root: Path) -> str:
    """The fake fal.media: files from the page cache; `/files/<kind>-<id>.mp4` is `<kind>.mp4`.

    Beside them fal's key set, where there is one.
    """
    return (_COMMON + _UPSTREAM).format(user=_user(), home=home, port=port, root=root)


def cache_config(home: Path, port: int, upstream: int) -> str:
    """The peer: `/videos/<name>.mp4` through `proxy_cache`."""
    return (_COMMON + _CACHE).format(user=_user(), home=home, port=port, upstream=upstream)


def _user() -> str:
    # Only a master that is root may say so; its worker has to be able to write to `home`.
    return "user root;" if os.geteuid() == 0 else ""
