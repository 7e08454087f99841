"""The one place that makes requests to addresses given from outside: nobody reaches through us into a private network.

An address is looked up once, everything that the name stands for is checked, and the connection goes to the very number
that was checked: a name that points elsewhere a moment later (DNS rebinding) gains nothing. TLS certificates are still
verified for the name. No redirect is followed here, no proxy used, no cookie kept, nothing decompressed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from easyphoto.errors import InputError

if TYPE_CHECKING:
    import httpx

LONGEST_URL = 2048
"""Characters."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_FIRST_FREE_PORT = 1024
"""Below it only 80 and 443 are spoken to: the rest belongs to mail, shells, file shares."""
_MOST_ADDRESSES = 4
"""Numbers of one name that are tried in turn."""
_MOST_LOOKED_AT = 64
"""Numbers that one name may stand for."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""The last 32 bits are the IPv4 address that is really reached (RFC 6052)."""
_TUNNELS = tuple(map(ipaddress.IPv6Network, ("2002::/16", "2001::/32", "3fff::/20")))
"""6to4 and Teredo carry an IPv4 address that would have to be checked, and nobody uses them any more; documentation."""
_SET_ASIDE = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))
"""Reserved (RFC 6890), with a cloud's metadata at .192; 6to4 relays. Not every Python counts the whole of them as such."""
_CLOUD_INSIDE = frozenset({ipaddress.ip_address("168.63.129.16")})
"""Looks public, answers with a virtual machine's own secrets (Azure)."""


class AddressRefused(InputError):
    """An address may not be spoken to, today or later."""

    code = "bad_address"


class Unreachable(InputError):
    """An address gave no usable answer; it may do so later."""

    code = "unreachable"


@dataclass(frozen=True, kw_only=True)
class Target:
    """An address that was checked."""

    url: str
    scheme: str
    host: str
    """ASCII, lower case, without brackets."""
    port: int
    path: str
    """With the query, beginning with a slash."""
    numbers: tuple[str, ...]
    """IP addresses that were checked; only these are connected to."""

    @property
    def host_header(self) -> str:
        """What the server knows itself by."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long and how much one request may take."""

    connect_seconds: float = 5.0
    seconds: float = 30.0
    """For the whole of it, from connecting to the last byte, however slowly they drip."""
    max_bytes: int = 64 * 1024
    """Of the answer's body."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What is sent."""

    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


def check_url(url: str, allow_private: bool = False) -> Target:
    """The address with the numbers it stands for, all of them checked.

    Args:
        url: http or https, a host, perhaps a port, a path, a query.
        allow_private: Loopback and private networks too. Link-local ones (cloud metadata) and multicast are never allowed.

    Raises:
        AddressRefused: It is no such address, or leads to a network that is not public.
        Unreachable: Its name cannot be looked up at the moment.
    """
    parts = _split(url)
    host, port = _host(parts), _port(parts)
    numbers = _look_up(host, port)
    for number in numbers:
        reason = _refusal(ipaddress.ip_address(number), allow_private)
        if reason:
            raise AddressRefused(f"the address of {host} is {reason}; give one that is reachable from the public internet")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(url=url, scheme=parts.scheme, host=host, port=port, path=path, numbers=numbers[:_MOST_ADDRESSES])


def send(target: Target, message: Message, limits: Limits) -> Answer:
    """Make one request and read the whole answer; blocks, so call it in a thread of its own where others wait.

    Raises:
        Unreachable: No connection, a bad certificate, too slow, too much, or a compressed answer.
    """
    return asyncio.run(_in_time(target, message, limits))


async def _in_time(target: Target, message: Message, limits: Limits) -> Answer:
    try:
        return await asyncio.wait_for(_send(target, message, limits), limits.seconds)
    except (asyncio.TimeoutError, TimeoutError) as error:
        raise Unreachable(f"{target.host} took longer than {limits.seconds:g} seconds; try again later") from error


async def _send(target: Target, message: Message, limits: Limits) -> Answer:
    """To the first of the checked numbers that takes the connection."""
    import httpx

    failure: Exception | None = None
    timeout = httpx.Timeout(limits.seconds, connect=limits.connect_seconds)
    # trust_env off: a proxy would look the name up again and connect wherever it pleases.
    verify = _certificates() if target.scheme == "https" else False
    async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=timeout, follow_redirects=False) as client:
        for number in target.numbers:
            outcome = await _attempt(client, number, target, message, limits)
            if isinstance(outcome, Answer):
                return outcome
            failure = outcome
    raise Unreachable(f"{target.host} cannot be connected to ({_reason(failure)}); check the address") from failure


async def _attempt(
    client: httpx.AsyncClient, number: str, target: Target, message: Message, limits: Limits
) -> Answer | Exception:
    """The answer, or why there was no connection: then the next number may have one."""
    import httpx

    try:
        return await _send_to(client, number, target, message, limits)
    except (httpx.ConnectError, httpx.ConnectTimeout, OSError) as error:
        # OSError: httpx 0.24 passes a refused certificate on as it is.
        return error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise Unreachable(f"{target.host} gave no answer ({_reason(error)}); try again later") from error


async def _send_to(client: httpx.AsyncClient, number: str, target: Target, message: Message, limits: Limits) -> Answer:
    authority = f"[{number}]" if ":" in number else number
    headers = {"Accept-Encoding": "identity", "User-Agent": "easyphoto", **message.headers, "Host": target.host_header}
    request = client.build_request(
        message.method, f"{target.scheme}://{authority}:{target.port}{target.path}", headers=headers, content=message.body,
        extensions={"sni_hostname": target.host},
    )  # fmt: skip
    response = await client.send(request, stream=True)
    try:
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise Unreachable(f"{target.host} answers with {encoding[:20]!r} though asked not to compress; use another address")
        body = await _read(response.aiter_raw(), response.headers.get("content-length", ""), target, limits)
        return Answer(status=response.status_code, headers=dict(response.headers.items()), body=body)
    finally:
        await response.aclose()


async def _read(chunks: AsyncIterator[bytes], announced: str, target: Target, limits: Limits) -> bytes:
    """The body, given up as soon as it is known to be too long."""
    too_long = Unreachable(f"{target.host} answers with more than {limits.max_bytes:,} bytes; use something smaller")
    if announced.isdecimal() and int(announced) > limits.max_bytes:
        raise too_long
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limits.max_bytes:
            raise too_long
    return bytes(body)


def _certificates() -> ssl.SSLContext:
    """Whom we believe: `SSL_CERT_FILE` where it is set, else the list that comes with certifi."""
    import certifi

    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())


def _reason(error: Exception | None) -> str:
    return str(error).strip()[:120] or type(error).__name__


def _split(url: str) -> SplitResult:
    if len(url) > LONGEST_URL:
        raise AddressRefused(f"the address has {len(url):,} characters; {LONGEST_URL:,} are allowed, so shorten it")
    # Parsers disagree about these; where they do, what is checked is not what is connected to.
    if any(letter <= " " or letter in "\\\x7f" for letter in url):
        raise AddressRefused("the address holds a space, a backslash or a control character; leave it out or write it as %20")
    try:
        url.encode("utf-8")
        parts = urlsplit(url)
    except ValueError as error:
        raise AddressRefused(f"the address cannot be understood ({error}); write it as https://host/path") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise AddressRefused(f"the address begins with {parts.scheme[:20]!r}; only http:// and https:// are allowed")
    if "@" in parts.netloc:
        raise AddressRefused("the address holds a user name or password; leave it out")
    return parts


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    try:
        plain = host if ":" in host else host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise AddressRefused(f"the host {host[:80]!r} is no name that can be looked up; check the address") from error
    if not plain.strip("."):
        raise AddressRefused("the address names no host; write it as https://host/path")
    if any(letter in "%/?#[]<>^|\"'" for letter in plain):
        raise AddressRefused(f"the host {host[:80]!r} holds characters that no host has; check the address")
    return plain


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError as error:
        raise AddressRefused("the address has a port that is no number from 1 to 65535; correct it") from error
    if port is None:
        return _DEFAULT_PORTS[parts.scheme]
    if port not in _DEFAULT_PORTS.values() and port < _FIRST_FREE_PORT:
        raise AddressRefused(f"port {port} is not spoken to; use 80, 443 or one from {_FIRST_FREE_PORT} on")
    return port


def _look_up(host: str, port: int) -> tuple[str, ...]:
    """Every number the name stands for, in the system's order."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"the host {host} cannot be looked up; check the address") from error
    numbers = tuple(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
    if not numbers or len(numbers) > _MOST_LOOKED_AT:
        raise Unreachable(f"the host {host} stands for {len(numbers)} addresses; use another one")
    return numbers


def _refusal(number: _Address, allow_private: bool) -> str:
    """Why this number may not be connected to; empty if it may."""
    really = _unwrapped(number)
    if really.is_link_local or really.is_multicast or really in _CLOUD_INSIDE:
        return "link-local or multicast, where cloud machines keep their secrets"
    if allow_private:
        return ""
    if really.is_loopback or really.is_unspecified:
        return "this machine itself"
    return "" if _is_public(really) else "in a private or reserved network"


def _unwrapped(number: _Address) -> _Address:
    """The IPv4 address inside a mapped or NAT64 one."""
    if isinstance(number, ipaddress.IPv4Address):
        return number
    if number.ipv4_mapped is not None:
        return number.ipv4_mapped
    return ipaddress.IPv4Address(int(number) & 0xFFFFFFFF) if number in _NAT64 else number


def _is_public(number: _Address) -> bool:
    if isinstance(number, ipaddress.IPv4Address):
        return number.is_global and not number.is_reserved and not any(number in network for network in _SET_ASIDE)
    return number in _GLOBAL_UNICAST and number.is_global and not any(number in tunnel for tunnel in _TUNNELS)
