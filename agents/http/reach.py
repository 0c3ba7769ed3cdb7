"""Which addresses a workflow's requests may reach: the public ones, and what the operator allows besides.

A workflow's addresses often come from its input. Without a guard, whoever writes the input reaches the platform's own
servers, the cloud's metadata service and whatever else listens inside. A check of the name before the request is not
enough: the name may resolve to another address a moment later, and a redirect names another host. So the check stands
where connections are made: the name is resolved once, the addresses are judged, and exactly those are connected to.

Invariants: an address that carries another one inside (mapped, translated or tunnelled IPv4) is judged by that; what is
not plainly public counts as private; link-local addresses, where clouds keep their metadata, are reached only if their
network is named.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self

import httpcore

from runtara.protocol.errors import InvalidSetting

from ..errors import AgentError
from .failures import ADDRESS_BLOCKED

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[tuple[Address, ...]]]

ALL: Final = "all"
SETTING: Final = "http_allow_private"
_HOST: Final = re.compile(r"\.?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_METADATA: Final = (ipaddress.ip_address("168.63.129.16"),)  # Azure's, in the middle of the public ones
_RESERVED: Final = (  # which some versions of Python take for public
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),
)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_TRANSLATED: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_LOW_32: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What is allowed besides public addresses. `hosts` that begin with a dot stand for all names below."""

    private: bool = False
    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """`all`, or hosts and networks separated by commas. Raises `InvalidSetting`."""
        parts = [part.strip().lower() for part in (text or "").split(",") if part.strip()]
        networks, hosts = [], set()
        for part in parts:
            network = _network(part)
            if network is not None:
                networks.append(network)
            elif _HOST.fullmatch(part):
                hosts.add(part)
            else:
                reason = f"{part!r} is no host and no network; use {ALL!r}, or names and networks like 10.0.0.0/8"
                raise InvalidSetting(name=SETTING, value=text, reason=reason)
        return cls(private=ALL in hosts, networks=tuple(networks), hosts=frozenset(hosts - {ALL}))

    def may_reach(self, host: str, address: Address) -> bool:
        """Whether `address`, which `host` resolved to, may be connected to."""
        inner = _innermost(address)
        if any(address in network or inner in network for network in self.networks) or _is_public(inner):
            return True
        return (self.private or self._names(host)) and not inner.is_link_local and inner not in _METADATA

    def _names(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return name in self.hosts or any(part[0] == "." and name.endswith(part) for part in self.hosts)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Makes connections, to addresses within reach only."""

    def __init__(self, reach: Reach, resolve: Resolve) -> None:
        self._reach = reach
        self._resolve = resolve
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await within_reach(self._reach, host, await self._resolve(host, port)):
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def within_reach(reach: Reach, host: str, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """Those of `addresses` that may be connected to. Raises `AgentError` HTTP_ADDRESS_BLOCKED if none of them may."""
    allowed = tuple(address for address in addresses if reach.may_reach(host, address))
    if addresses and not allowed:
        # the address itself is not told: it would make a map of the inside
        message = f"{host} is no public address; the operator allows others by RUNTARA_{SETTING.upper()}"
        raise AgentError(ADDRESS_BLOCKED, message, attributes={"host": host})
    return allowed


async def resolve(host: str, port: int) -> tuple[Address, ...]:
    """The addresses of `host`, as the system knows them. Raises `httpcore.ConnectError`."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise httpcore.ConnectError(f"{host} cannot be resolved: {exc}") from exc
    return tuple(dict.fromkeys(ipaddress.ip_address(where[0]) for *_, where in found))


def _innermost(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _TRANSLATED):
        return ipaddress.IPv4Address(int(address) & _LOW_32)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    if address in _METADATA or any(address in network for network in _RESERVED):
        return False
    return address.is_global and not address.is_multicast


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
