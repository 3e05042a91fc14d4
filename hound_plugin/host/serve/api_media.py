"""Where the media of an API request may come from: the allowed folder (as path or ``file://``), ``data:``, public http.

The host's own checks come first. Beyond them: a folder whose name merely begins like that of the allowed one is
outside; every frame of a folder must itself be inside; a redirect is checked like the address that led to it; and the
connection goes to the very network address that was checked, so that a name cannot point elsewhere in between.
Refusals do not reveal what exists outside the allowed folder.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from typing import Any
from urllib.parse import urljoin

from hound_plugin.errors import MediaError, MediaNotFoundError
from hound_plugin.records.served_media import allowed_media, check_whole, decode_data_url, path_of_file_url
from hound_plugin.version import __version__

MAX_BYTES = 512 << 20
MAX_REDIRECTS = 5
MAX_SECONDS = 120.0
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
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


def open_source(url: str, kind: str) -> str | list[str] | bytes:
    """What the processor can read: a real path, the frames of a folder, or bytes.

    Args:
        url: of an ``image_url`` or a ``video_url``: a path, ``file://``, ``data:`` or http(s).
        kind: "image" or "video".

    Raises:
        MediaError: it may not be read, is unavailable, or is empty.
        fastapi.HTTPException: the host's own check refuses it.
    """
    scheme = url[:8].lower()
    if scheme.startswith("data:"):
        return decode_data_url(url, kind)
    if scheme.startswith("file:"):
        return local_media(path_of_file_url(url), kind)
    if _SCHEME.match(url):
        check_whole(url, kind)
        return fetch(url)
    return local_media(url, kind)


def local_media(path: str, kind: str) -> str | list[str]:
    """The real path of a file (or of a part of a clip) in the allowed folder, or of each frame of a folder in it.

    Raises:
        MediaError: as :func:`hound_plugin.records.served_media.allowed_media`.
        fastapi.HTTPException: the host refuses local files.
    """
    from llamafactory.api import common

    if not common.ALLOW_LOCAL_FILES:
        common.check_lfi_path(path)  # raises with its own status
    return allowed_media(path, kind, common.SAFE_MEDIA_PATH, "SAFE_MEDIA_PATH", common.check_lfi_path)


# --- http


def is_public(address: str) -> bool:
    """Whether a network address belongs to the public internet, also when it wraps another one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip not in _UNICAST:  # NAT64, translated, site-local and the like lead elsewhere
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)


def fetch(url: str) -> bytes:
    """Download from public addresses only, redirects included.

    Raises:
        MediaError: private or unreachable, too large, too slow, or an answer other than 200.
        fastapi.HTTPException: the host's own check refuses it.
    """
    from llamafactory.api.common import check_ssrf_url
    from urllib3.exceptions import HTTPError

    deadline = time.monotonic() + MAX_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        check_ssrf_url(url)
        try:
            response = _request(url)
            try:
                if response.status in (301, 302, 303, 307, 308) and response.headers.get("Location"):
                    url = urljoin(url, response.headers["Location"])
                    continue
                if response.status != 200:
                    raise MediaNotFoundError(f"{url[:200]} answers with status {response.status}.", url)
                return _body(response, url, deadline)
            finally:
                response.close()
        except (HTTPError, OSError, ValueError) as error:
            if isinstance(error, MediaError):
                raise
            raise MediaNotFoundError(f"{url[:200]} cannot be read: {error}.", url) from error
    raise MediaNotFoundError(f"{url[:200]}: more than {MAX_REDIRECTS} redirects.", url)


def _request(url: str) -> Any:
    """Send a GET to one of the checked addresses of the URL's host."""
    import urllib3

    parts = urllib3.util.parse_url(url)
    host = (parts.hostname or "").strip("[]")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = list(
        dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    )
    if not addresses or not all(map(is_public, addresses)):
        raise MediaNotFoundError(f"{url[:200]}: private or reserved network addresses are not read from.", url)
    timeout = urllib3.Timeout(connect=10, read=30)
    pool: Any
    if parts.scheme == "https":
        pool = urllib3.HTTPSConnectionPool(
            addresses[0], port, timeout=timeout, retries=False, server_hostname=host, assert_hostname=host,
            ca_certs=_certificates(),
        )  # fmt: skip
    else:
        pool = urllib3.HTTPConnectionPool(addresses[0], port, timeout=timeout, retries=False)
    headers = {
        "Host": parts.netloc.rpartition("@")[2] if parts.netloc else host,
        "Accept-Encoding": "identity",
        "User-Agent": f"hound-plugin/{__version__}",
    }
    return pool.urlopen(
        "GET", parts.request_uri, headers=headers, redirect=False, preload_content=False, assert_same_host=False
    )


def _certificates() -> str:
    import certifi

    return os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()


def _body(response: Any, url: str, deadline: float) -> bytes:
    content = bytearray()
    for chunk in response.stream(1 << 16):
        content += chunk
        if len(content) > MAX_BYTES:
            raise MediaError(f"{url[:200]} is larger than {MAX_BYTES >> 20} MiB.", url)
        if time.monotonic() > deadline:
            raise MediaError(f"{url[:200]} was not complete after {MAX_SECONDS:.0f} s.", url)
    return bytes(content)
