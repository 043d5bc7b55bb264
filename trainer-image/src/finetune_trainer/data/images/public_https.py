"""GET of an untrusted https:// URL that can reach nothing but the public internet.

A URL in a dataset is an attempt at server-side request forgery until shown otherwise. So: https only; the host's name
is resolved once, every address that it has must be public, and the connection goes to one of those very addresses; no
proxy, no credentials, no cookies are used; every redirect is judged as the first URL was; size and time are bounded.

https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

MOST_REDIRECTS = 3
CONNECT_SECONDS = 10
FETCH_SECONDS = 30  # of one hop, from the connection to the last byte
TRIES = 3
PAUSE_SECONDS = 1.0
CHUNK_BYTES = 64 * 1024
REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (408, 429, 500, 502, 503, 504)
# Beside what Python calls private: protocol assignments (metadata at Oracle), 6to4 relays, and the wire server of
# Azure, a public address that answers inside of Azure only.
NOT_PUBLIC = tuple(ipaddress.ip_network(block) for block in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"))
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
NOT_UNICAST = tuple(ipaddress.ip_network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))


class RefusedError(ValueError):
    """Why a URL is not fetched, or its content is rejected, in one sentence."""


class _PassingError(Exception):
    """The same request may work in a moment."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: not private, loopback, link-local, reserved or metadata.

    IPv4 within IPv6 (mapped, or by NAT64) is judged as IPv4; tunnels (6to4, Teredo) are refused.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        within = parsed.ipv4_mapped or (ipaddress.IPv4Address(parsed.packed[-4:]) if parsed in NAT64 else None)
        if within is None:
            return parsed in GLOBAL_UNICAST and not any(parsed in block for block in NOT_UNICAST)
        parsed = within
    refused = parsed.is_multicast or parsed.is_reserved or any(parsed in block for block in NOT_PUBLIC)
    return parsed.is_global and not refused


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class PublicHttps:
    """Fetches from the public internet. The fields are what tests replace."""

    resolve: Callable[[str, int], Sequence[str]] = resolve
    is_public: Callable[[str], bool] = is_public
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    pause: Callable[[float], None] = time.sleep

    def get(self, url: str, *, allowed: Callable[[str], bool], most_bytes: int) -> bytes:
        """The body. `allowed` is asked about the URL and about every redirect.

        Raises RefusedError, also when the server can't be reached after some tries.
        """
        for attempt in range(TRIES):
            try:
                return self._follow(url, allowed, most_bytes)
            except (_PassingError, OSError, http.client.HTTPException) as error:
                if attempt == TRIES - 1 or isinstance(error, ssl.SSLCertVerificationError):
                    raise RefusedError(f"it can't be fetched: {str(error) or type(error).__name__}") from error
            self.pause(PAUSE_SECONDS * 2**attempt)
        raise AssertionError("unreachable")

    def _follow(self, url: str, allowed: Callable[[str], bool], most_bytes: int) -> bytes:
        for _ in range(MOST_REDIRECTS + 1):
            if not allowed(url):
                raise RefusedError("the class's sources.images do not allow it")
            found = self._get_once(_checked(url), most_bytes)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise RefusedError(f"it redirects more than {MOST_REDIRECTS} times")

    def _get_once(self, url: SplitResult, most_bytes: int) -> bytes | str:
        """The body, or where it redirects to."""
        host, port = url.hostname or "", url.port or 443
        addresses = self.resolve(host, port)
        if not addresses or not all(self.is_public(address) for address in addresses):
            raise RefusedError(f"{host} is not a host on the public internet")
        connection = http.client.HTTPSConnection(host, port, context=self.tls)
        with socket.create_connection((addresses[0], port), timeout=CONNECT_SECONDS) as plain:
            secured = self.tls.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        with secured, _hung_up_in_time(secured):
            secured.do_handshake()
            connection.sock = secured
            connection.request("GET", f"{url.path or '/'}{'?' if url.query else ''}{url.query}", headers=_HEADERS)
            with connection.getresponse() as response:
                return _read(response, most_bytes)


_HEADERS = {"Accept": "image/jpeg, image/png, image/webp", "User-Agent": "finetune-trainer"}


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RefusedError(f"it is no URL: {error}") from error
    if parts.scheme != "https" or not parts.hostname:
        raise RefusedError("only https:// is fetched")
    if parts.username is not None or parts.password is not None:
        raise RefusedError("a URL with a user or password is not fetched")
    if port == 0 or any(ord(char) <= 32 or ord(char) >= 127 for char in url):
        raise RefusedError("it has characters that no URL has")
    return parts


def _read(response: http.client.HTTPResponse, most_bytes: int) -> bytes | str:
    if response.status in REDIRECTS and (location := response.headers.get("Location")):
        return location
    if response.status in PASSING:
        raise _PassingError(f"the server answers {response.status}")
    if response.status != 200:
        raise RefusedError(f"the server answers {response.status}")
    too_large = RefusedError(f"it has more than {most_bytes} bytes")
    if (response.length or 0) > most_bytes:
        raise too_large
    body = bytearray()
    while chunk := response.read(min(CHUNK_BYTES, most_bytes + 1 - len(body))):
        body += chunk
        if len(body) > most_bytes:
            raise too_large
    if response.length:
        raise _PassingError("the connection ended before the last byte")
    return bytes(body)


@contextmanager
def _hung_up_in_time(connection: ssl.SSLSocket) -> Iterator[None]:
    """A socket's timeout restarts with every byte; this one does not. Raises RefusedError when it is over."""
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(FETCH_SECONDS, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (_PassingError, OSError, http.client.HTTPException):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
    if late.is_set():
        raise RefusedError(f"it takes longer than {FETCH_SECONDS} seconds")
