"""Where a container may connect to, and how it reaches NATS from there.

`bus`: an internal network, from which nothing but what is in it, and this machine at the network's own address, can be
reached. Its containers do not see each other. Operators who run NATS in a container name a network of their own, in
which NATS is (`bus_network`). What else listens at this machine's every address is reachable, too: that is a firewall's
to forbid, not the engine's.
`bridge`: the engine's usual network. `host`: this machine's.

Invariant: an address of NATS that is this machine's loopback, which no container can reach, becomes the address by
which its network knows this machine.
"""

from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from runtara.infra.settings import Settings
from runtara.protocol.ids import derived_name

from ..launches import LaunchFailed
from .engine import ContainerEngine, Network
from .spec import LABEL

Mode = Literal["bus", "bridge", "host"]

HOST_NAME: Final = "host.docker.internal"
ISOLATED: Final = {"com.docker.network.bridge.enable_icc": "false"}
_LOOPBACK: Final = ("localhost", "127.", "[::1]", "::1")


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """`network` as the engine takes it, names of `hosts` to add, and NATS's address from there."""

    network: str
    nats_url: str
    hosts: tuple[str, ...] = ()


class Networks:
    def __init__(self, settings: Settings, engine: ContainerEngine) -> None:
        self._settings = settings
        self._engine = engine
        self._bus: Network | None = None

    async def way(self, mode: Mode) -> Way:
        """Raises `LaunchFailed`, and what the engine may."""
        settings = self._settings
        url = settings.nats_url_inside or settings.require_nats_url()
        if mode == "host":
            return Way(network="host", nats_url=url)
        if mode == "bridge":
            host = HOST_NAME if _is_loopback(url) else None
            hosts = (f"{HOST_NAME}:host-gateway",)
            return Way(network="bridge", nats_url=_at(url, host), hosts=hosts)
        bus = self._bus = self._bus or await self._bus_network()
        return Way(network=bus.name, nats_url=_at(url, bus.gateway if _is_loopback(url) else None))

    async def _bus_network(self) -> Network:
        settings, engine = self._settings, self._engine
        if settings.bus_network is not None:
            found = await engine.network(settings.bus_network)
            if found is None:
                raise LaunchFailed(reason=f"there is no Docker network {settings.bus_network!r} (setting bus_network)")
            return found
        name = derived_name("runtara-bus", settings.deployment, settings.tenant)
        labels = {f"{LABEL}deployment": settings.deployment, f"{LABEL}tenant": settings.tenant}
        await engine.create_network(name, options=ISOLATED, labels=labels)
        found = await engine.network(name)
        if found is None:
            raise LaunchFailed(reason=f"somebody removed the Docker network {name}")
        return found


def _is_loopback(url: str) -> bool:
    return all((urlsplit(one.strip()).hostname or "").startswith(_LOOPBACK) for one in url.split(","))


def _at(url: str, host: str | None) -> str:
    """`url` with another host, if one is given."""
    if host is None:
        return url
    parts = urlsplit(url.split(",")[0].strip())
    return f"{parts.scheme}://{host}:{parts.port or 4222}"
