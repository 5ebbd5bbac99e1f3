"""Where clips may be fetched from: names that are on a list, and addresses that are public.

Belongs here: whether a URL, and the address that its name led to, may be asked at all. Must not
know: how it is asked. `check_url` returns the URL in the one spelling that was checked, so that
whoever connects cannot read another host out of it than was looked at here.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Self
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from proxy.errors import SettingsError, SourceUntrusted
from proxy.host_patterns import HostPattern, host_name, literal

_LONGEST_URL = 16_384
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ufeff\\]")
_ASCII_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"
_DEFAULT_PORTS = {"https": 443, "http": 80}

_NOT_PUBLIC_V4 = tuple(
    ipaddress.ip_network(net)
    for net in (
        "0.0.0.0/8",  # "this" network: Linux connects to itself
        "100.64.0.0/10",  # carrier-grade NAT (RFC 6598)
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "198.18.0.0/15",  # benchmarks (RFC 2544)
    )
)
_GLOBAL_UNICAST_V6 = ipaddress.ip_network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    ipaddress.ip_network(net)
    for net in (
        "2001::/23",  # Teredo, ORCHID and other protocol assignments
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries any IPv4 address (RFC 3056)
        "3fff::/20",  # documentation (RFC 9637)
    )
)


def is_public(address: str | IPv4Address | IPv6Address) -> bool:
    """Tell whether an IP address is one that the public internet routes to a single host.

    Private, loopback, link-local, multicast, reserved, unspecified and carrier-grade NAT
    addresses are not, nor is IPv6 that wraps an IPv4 address (mapped, NAT64, 6to4, Teredo): what
    it leads to cannot be told from here. Neither is anything that is no address.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.is_multicast or ip.is_reserved or ip.is_private or not ip.is_global:
        return False
    if isinstance(ip, IPv4Address):
        return not any(ip in net for net in _NOT_PUBLIC_V4)
    # All of ::ffff:0:0/96, 64:ff9b::/96 and fe80::/10 lies outside 2000::/3.
    return ip in _GLOBAL_UNICAST_V6 and not any(ip in net for net in _NOT_PUBLIC_V6)


@dataclass(frozen=True, slots=True)
class Policy:
    """The list, and whether http, other ports and private addresses are let through."""

    patterns: tuple[HostPattern, ...]
    insecure: bool = False

    @classmethod
    def of(cls, hosts: tuple[str, ...], *, insecure: bool = False) -> Self:
        """Read the list as the settings have it. Raises SettingsError for all wrong entries."""
        patterns, wrong = [], []
        for text in hosts:
            try:
                patterns.append(HostPattern.parse(text))
            except ValueError as error:
                wrong.append(f"FIRSTVIEW_UPSTREAM_HOSTS: {text!r} {error}")
        if wrong:
            raise SettingsError("\n".join(wrong))
        return cls(tuple(patterns), insecure)


def check_url(url: str, policy: Policy) -> str:
    """Return `url` in the spelling to fetch it by, if it may be fetched at all.

    Raises SourceUntrusted with the reason otherwise. Scheme and host come back in lower case,
    the host as ASCII (IDNA) without a trailing dot, the path percent-encoded where it was not
    ASCII, and no default port, no user information and no fragment is left.
    """
    if len(url) > _LONGEST_URL:
        raise SourceUntrusted("The clip's address is too long.")
    if _FORBIDDEN.search(url):
        raise SourceUntrusted("The clip's address has characters that no address may have.")
    try:
        parts = urlsplit(url)
        port = parts.port
        address = literal(parts.hostname or "")
        host = str(address) if address is not None else host_name(parts.hostname or "")
        target = _path_and_query(parts)
    except ValueError as error:  # UnicodeError, from IDNA and lone surrogates, is one too
        raise SourceUntrusted("The clip's address cannot be read.") from error
    if parts.scheme not in ({"http", "https"} if policy.insecure else {"https"}):
        raise SourceUntrusted("The clip's address is not an https address.")
    if "@" in parts.netloc:
        raise SourceUntrusted("The clip's address carries a user name.")
    if port == _DEFAULT_PORTS[parts.scheme]:
        port = None
    if not policy.insecure and (port is not None or address is not None):
        raise SourceUntrusted("The clip's address has a port of its own, or no host name.")
    if any(part in {".", ".."} for part in re.split(r"[/\\]", unquote(parts.path))):
        raise SourceUntrusted("The clip's address climbs about in its path.")
    if not any(pattern.matches(host, parts.path) for pattern in policy.patterns):
        raise SourceUntrusted("The clip's source is not on the list of allowed hosts.")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{target}"


def check_redirect(base: str, location: str, policy: Policy) -> str:
    """Return where a redirect from `base` leads, if it may be followed; else SourceUntrusted."""
    if _FORBIDDEN.search(location):
        # `urljoin` would drop some of them silently, and so change what is checked.
        raise SourceUntrusted("The clip's source redirects to something that is no address.")
    try:
        joined = urljoin(base, location)
    except ValueError as error:
        raise SourceUntrusted("The clip's address cannot be read.") from error
    return check_url(joined, policy)


def _path_and_query(parts: SplitResult) -> str:
    path = quote(parts.path or "/", safe=_ASCII_PUNCTUATION)
    query = quote(parts.query, safe=_ASCII_PUNCTUATION)
    return f"{path}?{query}" if query else path
