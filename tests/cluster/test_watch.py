"""The copy of what is in the cluster: complete and in time, whatever becomes of a watch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import msgspec
import pytest

from runtara.protocol.errors import InvalidSetting
from runtara.runner.cluster.access import Access, find_access
from runtara.runner.cluster.api import (
    JOBS,
    MAX_RETRY_AFTER_SECONDS,
    PODS,
    ApiServer,
    ClusterAway,
    ClusterRefused,
    RightMissing,
    _retry_after,
)
from runtara.runner.cluster.mirror import Mirror
from runtara.runner.cluster.objects import Job, Pod
from runtara.runner.cluster.sightings import Sightings
from tests.support.cluster.server import Cluster
from tests.support.polling import eventually
from tests.support.proxy import Proxy, proxy_of

SELECTOR = "runtara.dev/runner=r-1"


def pod(cluster: Cluster, name: str, **labels: str) -> dict[str, Any]:
    """In the store, where the stand-in's kubelet finds it: it waits there for its Secret."""
    labels = labels or {"runtara.dev/runner": "r-1"}
    spec = {
        "volumes": [{"name": "settings", "secret": {"secretName": "none"}}],
        "containers": [{"name": "a", "image": "b"}],
    }
    meta = {"name": name, "labels": labels, "annotations": {}}
    return cluster.store.create(
        "pods", cluster.namespace, {"metadata": meta, "spec": spec, "status": {"phase": "Pending"}}
    )


def remove(cluster: Cluster, name: str) -> None:
    cluster.store.remove("pods", cluster.namespace, name)


class Copy:
    """A mirror of pods, and what it has told."""

    def __init__(self, api: ApiServer) -> None:
        self.gone: list[str] = []
        self.seen: list[str] = []
        self.mirror = Mirror(
            api, PODS, Pod, SELECTOR,
            on_seen=lambda pod: self.seen.append(pod.metadata.name),
            on_gone=lambda pod: self.gone.append(pod.metadata.name),
        )  # fmt: skip

    async def has(self, *names: str) -> None:
        await eventually(lambda: set(self.mirror.items) == set(names), what=f"exactly {names}")


@asynccontextmanager
async def copying(api: ApiServer) -> AsyncIterator[Copy]:
    copy = Copy(api)
    async with copy.mirror:
        yield copy


@pytest.fixture
async def copy(api: ApiServer) -> AsyncIterator[Copy]:
    async with copying(api) as copy:
        yield copy


async def watches(cluster: Cluster, count: int) -> None:
    await eventually(lambda: cluster.calls["watch", "pods"] >= count, what=f"{count} watches")


async def test_what_was_there_and_what_comes_and_goes(cluster: Cluster, api: ApiServer) -> None:
    pod(cluster, "a")
    pod(cluster, "not-ours", **{"runtara.dev/runner": "r-2"})
    async with copying(api) as copy:
        assert set(copy.mirror.items) == {"a"}
        pod(cluster, "b")
        await copy.has("a", "b")
        remove(cluster, "a")
        await copy.has("b")
        assert copy.gone == ["a"]


async def test_a_value_may_have_any_of_the_line_ends_of_unicode(cluster: Cluster, copy: Copy) -> None:
    made = pod(cluster, "a")
    await copy.has("a")
    text = "one\u0085two\u2028three\u2029four\r"
    cluster.store.update("pods", {**made, "metadata": {**made["metadata"], "annotations": {"text": text}}})
    await eventually(lambda: copy.mirror.items["a"].metadata.annotations == {"text": text}, what="the text")
    assert cluster.calls["list", "pods"] == 1


async def test_a_list_comes_in_pages(cluster: Cluster, api: ApiServer) -> None:
    cluster.page_size = 2
    names = [f"p-{n}" for n in range(5)]
    for name in names:
        pod(cluster, name)
    async with copying(api) as copy:
        assert sorted(copy.mirror.items) == names
    assert cluster.calls["list", "pods"] == 3


async def test_a_list_whose_pages_expire_begins_again(cluster: Cluster, api: ApiServer) -> None:
    cluster.page_size = 2
    for n in range(3):
        pod(cluster, f"p-{n}")
    cluster.fail("list", "pods", 410, "The provided continue parameter is too old", after=1)
    async with copying(api) as copy:
        assert len(copy.mirror.items) == 3


async def test_a_watch_that_the_server_ends_goes_on_where_it_was(cluster: Cluster, copy: Copy) -> None:
    pod(cluster, "a")
    await copy.has("a")
    for n in range(5):
        cluster.hang_up()
        pod(cluster, f"b-{n}")
    await copy.has("a", *(f"b-{n}" for n in range(5)))
    assert cluster.calls["list", "pods"] == 1, "nothing had to be listed again"
    assert copy.gone == []


async def test_a_version_that_is_too_old_means_listing_again(cluster: Cluster, copy: Copy) -> None:
    pod(cluster, "a")
    pod(cluster, "b")
    await copy.has("a", "b")
    await watches(cluster, 1)
    cluster.fail("watch", "pods", 503, "down for a moment")
    cluster.hang_up()
    remove(cluster, "a")
    pod(cluster, "c")
    cluster.store.compact()
    await copy.has("b", "c")
    assert copy.gone == ["a"], "what went while nobody watched is told all the same"
    assert cluster.calls["list", "pods"] == 2


async def test_bookmarks_save_a_quiet_watch_from_listing_again(cluster: Cluster, copy: Copy) -> None:
    pod(cluster, "a")
    await copy.has("a")
    for n in range(10):
        pod(cluster, f"other-{n}", **{"runtara.dev/runner": "r-2"})

    def is_quiet() -> bool:
        return all("containerStatuses" in one["status"] for one in cluster.store.all("pods"))

    await eventually(is_quiet, what="pods that wait")
    bookmark = cluster.store.version
    cluster.store.bookmark()
    await eventually(lambda: copy.mirror.version == str(bookmark), what="the bookmark")
    cluster.store.compact()
    cluster.hang_up()
    await watches(cluster, 2)
    pod(cluster, "b")
    await copy.has("a", "b")
    assert cluster.calls["list", "pods"] == 1


async def test_rights_that_are_taken_away_are_asked_for_until_they_are_back(
    cluster: Cluster, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtara.runner.cluster.mirror.MAX_DELAY_SECONDS", 0.1)
    cluster.rights.remove(("watch", "pods"))
    cluster.hang_up()
    await watches(cluster, 3)
    cluster.rights.add(("watch", "pods"))
    pod(cluster, "a")
    await copy.has("a")


async def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(cluster: Cluster, copy: Copy) -> None:
    await watches(cluster, 1)
    cluster.fail("watch", "pods", 429, "too many requests", retry_after=1)
    loop = asyncio.get_running_loop()
    before = loop.time()
    cluster.hang_up()
    await watches(cluster, 3)
    assert loop.time() - before >= 1.0


async def test_of_what_is_forgotten_and_gone_nothing_is_kept(cluster: Cluster, api: ApiServer) -> None:
    """In whatever order a Job and its pod go."""
    async with Sightings(api, SELECTOR) as sightings:
        labels = {"runtara.dev/runner": "r-1", "runtara.dev/job": "one"}
        pod(cluster, "one-abc", **labels)
        await eventually(lambda: sightings.of("one").pod is not None, what="the pod")
        sightings.want("one")
        remove(cluster, "one-abc")
        await eventually(lambda: sightings.of("one").pod_is_gone, what="the end of the pod")
        assert sightings.known == {"one"}, "how it ended is still wanted"
        sightings.forget("one")
        assert not sightings.known
        pod(cluster, "one-late", **labels)  # of a Job that is gone, and forgotten before the pod was seen
        await eventually(lambda: sightings.of("one").pod is not None, what="the late pod")
        remove(cluster, "one-late")
        await eventually(lambda: not sightings.known, what="nothing")


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_all_the_time(
    cluster: Cluster, copy: Copy, caplog: pytest.LogCaptureFixture
) -> None:
    await watches(cluster, 1)
    for count in range(2, 5):
        cluster.hang_up()
        await watches(cluster, count)
    assert any("as soon as it has begun" in record.getMessage() for record in caplog.records)
    pod(cluster, "a")
    await copy.has("a")


def retry_after(text: str) -> float | None:
    return _retry_after(httpx.Response(429, headers={"Retry-After": text}))


def test_no_server_is_waited_for_as_long_as_it_likes() -> None:
    assert (retry_after("7"), retry_after("99999999"), retry_after("Wed, 21 Oct 2026 07:28:00 GMT")) == (
        7.0, MAX_RETRY_AFTER_SECONDS, None,
    )  # fmt: skip


async def test_a_token_that_cannot_be_read_for_a_moment_ends_nothing(
    cluster: Cluster, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a file is replaced by somebody less careful than the kubelet."""
    unreadable = InvalidSetting(name="kubeconfig", value="", reason="the token cannot be read")
    failures = [unreadable, unreadable]
    real = copy.mirror._api._access.authorization

    def authorization() -> str | None:
        if failures:
            raise failures.pop()
        return real()

    access = msgspec.structs.replace(copy.mirror._api._access, authorization=authorization)
    monkeypatch.setattr(copy.mirror._api, "_access", access)
    await watches(cluster, 1)
    cluster.hang_up()
    await eventually(lambda: not failures)
    pod(cluster, "a")
    await copy.has("a")


async def test_ages_are_told_by_the_clusters_clock(cluster: Cluster, api: ApiServer) -> None:
    """A runner whose clock is an hour wrong would end every Job, or none."""
    before = datetime.now(UTC)
    await api.list(PODS, Pod, SELECTOR)
    assert abs((api.now() - before).total_seconds()) < 60
    hour = timedelta(hours=1)
    api._see_clock(httpx.Response(200, headers={"Date": format_datetime(before + hour)}))
    assert abs((api.now() - before - hour).total_seconds()) < 60
    api._see_clock(httpx.Response(200, headers={"Date": "nonsense"}))
    assert abs((api.now() - before - hour).total_seconds()) < 60


# the network


@pytest.fixture
async def wire(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with proxy_of(cluster.url) as proxy:
        yield proxy


@pytest.fixture
async def far(cluster: Cluster, wire: Proxy) -> AsyncIterator[ApiServer]:
    server = wire.url.replace("nats://", "https://")
    async with ApiServer(find_access(environ={"KUBECONFIG": str(cluster.kubeconfig(server=server))})) as api:
        yield api


async def test_a_cut_network_delays_and_loses_nothing(cluster: Cluster, wire: Proxy, far: ApiServer) -> None:
    pod(cluster, "a")
    async with copying(far) as copy:
        await wire.cut()
        remove(cluster, "a")
        pod(cluster, "b")
        await wire.mend()
        await copy.has("b")
        assert cluster.calls["list", "pods"] == 1


async def test_a_watch_that_falls_silent_is_given_up(
    cluster: Cluster, wire: Proxy, far: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection whose other end is gone without a word stays open for ever."""
    monkeypatch.setattr("runtara.runner.cluster.api.SILENCE_SECONDS", 0.5)
    async with copying(far) as copy:
        await watches(cluster, 1)
        wire.hold()
        pod(cluster, "a")
        before = len(wire.clients)
        await eventually(lambda: len(wire.clients) > before, what="another connection")
        await wire.mend()
        await copy.has("a")
        assert cluster.calls["watch", "pods"] > 1


async def test_an_api_server_that_is_not_there_yet_is_waited_for(cluster: Cluster, wire: Proxy, far: ApiServer) -> None:
    await wire.cut()
    pod(cluster, "a")
    copy = Copy(far)
    entering = asyncio.create_task(copy.mirror.__aenter__())
    await asyncio.sleep(0.3)
    assert not entering.done()
    await wire.mend()
    await entering
    assert set(copy.mirror.items) == {"a"}
    await copy.mirror.__aexit__(None, None, None)


# what is refused


async def test_a_token_that_is_not_known(cluster: Cluster) -> None:
    access = find_access(environ={"KUBECONFIG": str(cluster.kubeconfig(token="wrong"))})
    async with ApiServer(access) as api:
        with pytest.raises(ClusterRefused, match="does not accept who we say we are"):
            await api.list(JOBS, Job, SELECTOR)


async def test_a_right_that_is_missing(cluster: Cluster, api: ApiServer) -> None:
    cluster.rights.clear()
    with pytest.raises(RightMissing, match="may not list jobs in namespace runtara-instances"):
        await api.list(JOBS, Job, SELECTOR)


async def test_what_is_no_api_server(access: Access) -> None:
    async def say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(say_hello, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with ApiServer(msgspec.structs.replace(access, server=f"http://127.0.0.1:{port}", tls=None)) as api:
            with pytest.raises(ClusterAway, match="cannot be read"):
                await api.list(JOBS, Job, SELECTOR)
