"""Media of an API request at http and https addresses, on the public internet only.

The host's own check comes first. Beyond it: a redirect is checked like the address that led to it, and the connection
goes to the very network address that was checked, so that a name cannot point elsewhere in between. A download ends at
its deadline, whatever its server does: names that do not resolve, headers and bytes that drip. It takes no thread, so
that slow ones hold up nobody.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urljoin

from hound_plugin.errors import MediaError, MediaNotFoundError
from hound_plugin.host.serve.api_connection import in_thread
from hound_plugin.records.served_media import check_whole
from hound_plugin.version import __version__

MAX_BYTES = 512 << 20
MAX_REDIRECTS = 5
MAX_SECONDS = 120.0
_REDIRECTS = (301, 302, 303, 307, 308)
_resolvers = ThreadPoolExecutor(32, "resolver")  # a look-up of a name cannot be ended
# Python's `is_global` is not enough: some of these count as global in some versions; 168.63.129.16 is Azure's own.
_UNICAST = ipaddress.ip_network("2000::/3")
_SPECIAL = [
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
]


def is_public(address: str) -> bool:
    """Whether a network address belongs to the public internet, also when it wraps another one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip not in _UNICAST:  # NAT64, translated, site-local and the like lead elsewhere
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)


def _any_number(count: int) -> None:
    pass


async def fetch(url: str, kind: str, seconds: float = MAX_SECONDS, take: Callable[[int], None] = _any_number) -> bytes:
    """Download from public addresses only, redirects included.

    Args:
        url: http or https.
        kind: "image" or "video", for messages.
        seconds: from the look-up of the name to the last byte.
        take: called with the number of bytes before they are kept.

    Raises:
        MediaError: a part of a clip, private or unreachable, too large, too slow, or an answer other than 200.
        fastapi.HTTPException: the host's own check refuses it.
    """
    import httpx

    check_whole(url, kind)
    try:
        async with asyncio.timeout(seconds):
            return await _follow(url, kind, take)
    except TimeoutError as error:
        raise MediaError(f"{url[:200]} was not complete after {seconds:g} s.", url) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaNotFoundError(f"{url[:200]} cannot be read: {error or type(error).__name__}.", url) from error


async def _follow(url: str, kind: str, take: Callable[[int], None]) -> bytes:
    first = url
    for _ in range(MAX_REDIRECTS + 1):
        address, port = await in_thread(_resolvers, _checked_address, url)
        result = await _get(url, address, port, take)
        if isinstance(result, bytes):
            return result
        url = urljoin(url, result)
        check_whole(url, kind)
    raise MediaNotFoundError(f"{first[:200]}: more than {MAX_REDIRECTS} redirects.", first)


def _checked_address(url: str) -> tuple[str, int]:
    """Network address and port of a URL's host; all of its addresses are public."""
    import httpx
    from llamafactory.api.common import check_ssrf_url

    check_ssrf_url(url)
    parts = httpx.URL(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(parts.raw_host.decode("ascii"), port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise MediaNotFoundError(f"{url[:200]}: private or reserved network addresses are not read from.", url)
    return addresses[0], port


async def _get(url: str, address: str, port: int, take: Callable[[int], None]) -> bytes | str:
    """The content of a URL, or the address that it redirects to."""
    import httpx

    parts = httpx.URL(url)
    is_secure = parts.scheme == "https"
    target = parts.copy_with(host=address, port=port, username=None, password=None, fragment=None)
    headers = {
        "Host": parts.netloc.decode("ascii"),
        "Accept-Encoding": "identity",
        "User-Agent": f"hound-plugin/{__version__}",
    }
    extensions: dict[str, Any] = {"sni_hostname": parts.raw_host.decode("ascii")} if is_secure else {}
    transport = httpx.AsyncHTTPTransport(verify=_tls(_certificates()) if is_secure else False, trust_env=False)
    async with (
        httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(30, connect=10), trust_env=False) as client,
        client.stream("GET", target, headers=headers, extensions=extensions) as response,
    ):
        if response.status_code in _REDIRECTS and response.headers.get("Location"):
            return str(response.headers["Location"])
        if response.status_code != 200:
            raise MediaNotFoundError(f"{url[:200]} answers with status {response.status_code}.", url)
        return await _content(response, url, take)


async def _content(response: Any, url: str, take: Callable[[int], None]) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise MediaError(f"{url[:200]} comes compressed ({encoding[:40]}), which was not asked for.", url)
    content = bytearray()
    async for chunk in response.aiter_raw(1 << 16):
        take(len(chunk))
        content += chunk
        if len(content) > MAX_BYTES:
            raise MediaError(f"{url[:200]} is larger than {MAX_BYTES >> 20} MiB.", url)
    return bytes(content)


def _certificates() -> str:
    import certifi

    return os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()


@functools.lru_cache(maxsize=4)
def _tls(certificates: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates)
