"""No request forgery: a workflow's requests reach public addresses, and what the operator allows; nothing else."""

import ipaddress
from collections.abc import AsyncIterator

import pytest

from runtara.agents import AgentError
from runtara.agents.http import Http, HttpRequest
from runtara.agents.http.pool import Pool
from runtara.agents.http.reach import Address, Reach, Resolve
from runtara.protocol.errors import InvalidSetting
from tests.support.http_server import HttpServer, always, http_server

INSIDE = (
    "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.8.8.8", "169.254.169.254",
    "169.254.0.1", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.168.1.1", "198.18.0.1",
    "203.0.113.9", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "::127.0.0.1",
)  # fmt: skip
OUTSIDE = (
    "1.1.1.1", "8.8.8.8", "100.63.255.255", "172.15.0.1", "172.32.0.1", "192.167.1.1", "169.253.1.1",
    "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1",
)  # fmt: skip
METADATA = ("169.254.169.254", "::ffff:169.254.169.254", "168.63.129.16", "fe80::1", "64:ff9b::a9fe:a9fe")


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_not_public_is_out_of_reach(address: str) -> None:
    assert not Reach().may_reach("example.org", ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_is_public_is_within_reach(address: str) -> None:
    assert Reach().may_reach("example.org", ipaddress.ip_address(address))


def may(setting: str, host: str, address: str) -> bool:
    return Reach.parse(setting).may_reach(host, ipaddress.ip_address(address))


def test_networks_and_hosts_can_be_allowed() -> None:
    assert may("10.0.0.0/8", "any", "10.1.2.3")
    assert may("10.0.0.0/8", "any", "::ffff:10.1.2.3")
    assert not may("10.0.0.0/8", "any", "192.168.1.1")
    assert may(" Intern.example.org , ::1 ", "intern.EXAMPLE.org.", "10.0.0.1")
    assert may("intern.example.org, ::1", "any", "::1")
    assert not may("intern.example.org", "x.intern.example.org", "10.0.0.1")
    assert may(".example.org", "x.intern.example.org", "10.0.0.1")
    assert not may(".example.org", "example.org.evil.net", "10.0.0.1")
    assert not may(".example.org", "evilexample.org", "10.0.0.1")
    assert may("all", "any", "127.0.0.1")


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_reached_only_if_their_network_is_named(address: str) -> None:
    assert not may("all", "any", address)
    assert not may("metadata.internal", "metadata.internal", address)
    assert may("169.254.0.0/16, 168.63.129.16, fe80::/10", "any", address)


@pytest.mark.parametrize("setting", ["10.0.0.0/99", "http://a", "a b", "*", "-", "a/b"])
def test_a_setting_that_cannot_be_read_is_refused(setting: str) -> None:
    with pytest.raises(InvalidSetting, match="http_allow_private"):
        Reach.parse(setting)


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as made:
        made.routes["/"] = always(200, b'"inside"')
        yield made


@pytest.fixture
async def guarded() -> AsyncIterator[Http]:
    made = Http(Pool(Reach()))
    yield made
    await made.close()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "localhost.", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "[::1]",
             "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "①②⑦.0.0.1", "127。0。0。1"],
)  # fmt: skip
async def test_no_spelling_of_this_machine_gets_through(guarded: Http, server: HttpServer, host: str) -> None:
    with pytest.raises(AgentError) as caught:
        await guarded.request(HttpRequest(url=f"http://{host}:{server.port}/"))
    # the first is the guard; a spelling that this machine's resolver does not know leads nowhere
    assert caught.value.code in ("HTTP_ADDRESS_BLOCKED", "HTTP_INVALID_REQUEST", "NETWORK_ERROR")
    assert server.connections == 0
    if host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        assert (caught.value.code, caught.value.permanent) == ("HTTP_ADDRESS_BLOCKED", True)
        assert "RUNTARA_HTTP_ALLOW_PRIVATE" in str(caught.value)


async def test_a_redirect_into_the_inside_is_refused(server: HttpServer) -> None:
    """The first host stands for a public one: it is allowed by name, the second is not."""
    async with http_server() as inside:
        inside.routes["/"] = always(200, b'"secret"')
        server.routes["/"] = always(302, Location=f"http://localhost:{inside.port}/")
        http = Http(Pool(Reach.parse("127.0.0.1/32"), names({"localhost": ["127.0.0.9"]})))
        with pytest.raises(AgentError) as caught:
            await http.request(HttpRequest(url=server.url))
        await http.close()
        assert (caught.value.code, inside.connections) == ("HTTP_ADDRESS_BLOCKED", 0)


async def test_a_name_that_changes_its_mind_is_judged_by_the_address_that_is_connected_to(server: HttpServer) -> None:
    """DNS rebinding: what is judged is what is connected to; whoever asks again is answered anew, and judged anew."""
    resolve = names({"rebind.example.org": ["127.0.0.1", "127.0.0.2", "127.0.0.1"]})
    http = Http(Pool(Reach.parse("127.0.0.1"), resolve))
    request = HttpRequest(url=f"http://rebind.example.org:{server.port}/")
    server.routes["/"] = always(200, b'"inside"', Connection="close")
    assert (await http.request(request)).body == "inside"
    with pytest.raises(AgentError, match="HTTP_ADDRESS_BLOCKED"):
        await http.request(request)
    assert (await http.request(request)).body == "inside"
    await http.close()


async def test_only_the_allowed_ones_of_many_addresses_are_tried(server: HttpServer) -> None:
    http = Http(Pool(Reach.parse("127.0.0.1"), names({"many": ["169.254.169.254 10.0.0.1 127.0.0.1"]})))
    made = await http.request(HttpRequest(url=f"http://many:{server.port}/"))
    await http.close()
    assert made.body == "inside"


async def test_the_operator_allows_by_the_setting(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTARA_HTTP_ALLOW_PRIVATE", raising=False)
    with pytest.raises(AgentError, match="HTTP_ADDRESS_BLOCKED"):
        await Http().request(HttpRequest(url=server.url))
    monkeypatch.setenv("RUNTARA_HTTP_ALLOW_PRIVATE", "127.0.0.1")
    http = Http()
    assert (await http.request(HttpRequest(url=server.url))).body == "inside"
    await http.close()


def names(known: dict[str, list[str]]) -> Resolve:
    """A resolver: of each name, one answer after the other, the last for ever; addresses are themselves."""
    left = {name: list(answers) for name, answers in known.items()}

    async def resolve(host: str, port: int) -> tuple[Address, ...]:
        answers = left.get(host, [host])
        text = answers.pop(0) if len(answers) > 1 else answers[0]
        return tuple(ipaddress.ip_address(one) for one in text.split())

    return resolve
