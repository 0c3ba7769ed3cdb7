"""The registry of images: versions, who starts with them, and what an instance of theirs takes into the log."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from runtara.infra.settings import Settings
from runtara.protocol.api import RegisterReply, RegisterRequest, Registration
from runtara.protocol.configuration import ForgetImage, ImagesRequest, ImageView, RegisteredImage, RegisterImage
from runtara.protocol.errors import (
    ImageInUse,
    ImageNotFound,
    InvalidId,
    InvalidImage,
    Malformed,
    PlatformUnreachable,
    RuntaraError,
)
from runtara.protocol.images import KIND
from runtara.protocol.messages import RunRequest
from runtara.protocol.records import Cancel, Image, Options, Start
from runtara.sdk import Client, sync
from tests.engine.test_registry import empty, fill, small, somewhere
from tests.support.peer import Peer, connect_peer
from tests.support.platform import running

__all__ = ["small"]  # a fixture

LIMITS: dict[str, Any] = {
    "memory_bytes": 256 * 1024**2, "cpus": 0.5, "pids": 64, "timeout_us": 3_600_000_000, "network": "bridge",
    "env": {"REGION": "eu"}, "secrets": ("api-key",),
}  # fmt: skip


def image(name: str = "orders", *, version: int = 0, reference: str = "orders:1", **limits: Any) -> Image:
    return Image(name=name, version=version, reference=reference, **limits)


async def register(peer: Peer, image: Image, *workflows: str | Registration) -> RegisteredImage:
    registrations = [Registration(workflow=w) if isinstance(w, str) else w for w in workflows]
    return await peer.api("register_image", RegisterImage(image=image, workflows=registrations), RegisteredImage)


async def views(peer: Peer, name: str | None = None) -> list[ImageView]:
    return await peer.api("images", ImagesRequest(name=name), list[ImageView])


async def forget(peer: Peer, name: str, version: int | None = None) -> list[int]:
    return await peer.api("forget_image", ForgetImage(name=name, version=version), list[int])


async def options_of(peer: Peer, instance: str) -> Options:
    """How the log says that it was started."""
    data = msgspec.json.decode((await peer.events(instance))[0]["data"])
    return msgspec.convert(data["options"], Options)


async def run_request(peer: Peer, subject: str) -> RunRequest:
    """What lies in the run queue under `subject`."""
    stream = peer.subjects.run_stream
    got = await peer.bus.nats.jetstream().get_last_msg(stream, subject)
    assert got.data is not None
    return msgspec.json.decode(got.data, type=RunRequest)


async def test_a_start_takes_the_whole_image_into_the_log_and_into_the_run_request(platform: Peer) -> None:
    schema = Raw(b'{"type":"object"}')
    workflow = Registration(workflow="fulfil", parameters=schema, options=Options(restarts=2), description="fulfils")
    registered = await register(platform, image(**LIMITS), workflow)
    stored = image(version=1, **LIMITS)
    assert (registered.created, registered.view.image, registered.view.used_by) == (True, stored, ["fulfil"])

    assert (await platform.start("i-1", "fulfil")).error is None
    expected = Options(runner=KIND, restarts=2, image=stored)
    assert await options_of(platform, "i-1") == expected
    subject = platform.subjects.run(KIND, "default", "fulfil", "i-1", 1)
    assert (await run_request(platform, subject)).options == expected
    view = next(view for view in await platform.workflows() if view.id == "fulfil")
    assert (view.kind, view.options, view.description) == (KIND, expected, "fulfils")
    assert bytes(view.parameters) == bytes(schema)
    await platform.is_sound()


async def test_an_image_is_registered_again_unchanged_or_as_the_next_version(platform: Peer) -> None:
    first = await register(platform, image(), "fulfil")
    again = await register(platform, image(), "fulfil")
    assert (first.created, again.created, again.view.image.version) == (True, False, 1)
    assert again.view.registered_at == first.view.registered_at
    for n, changed in enumerate((image(cpus=2), image(cpus=2, env={"A": "b"}), image(reference="orders:2")), start=2):
        registered = await register(platform, changed, "fulfil")
        assert (registered.created, registered.view.image.version) == (True, n)
    another_workflow = await register(platform, image(reference="orders:2"), "fulfil", "refund")
    assert another_workflow.view.image.version == 5
    assert [view.image.version for view in await views(platform, "orders")] == [5, 4, 3, 2, 1]


async def test_instances_keep_the_image_that_they_were_started_with(platform: Peer) -> None:
    await register(platform, image(), "fulfil")
    await platform.start("old", "fulfil")
    await register(platform, image(memory_bytes=64 * 1024**2), "fulfil")
    await platform.start("new", "fulfil")
    assert [(await options_of(platform, id)).image for id in ("old", "new")] == [
        image(version=1),
        image(version=2, memory_bytes=64 * 1024**2),
    ]
    assert [(view.image.version, view.used_by) for view in await views(platform)] == [(2, ["fulfil"]), (1, [])]


async def test_whoever_starts_an_instance_cannot_choose_its_image(platform: Peer) -> None:
    """Its limits, its network and its secrets are the registry's; the rest of the options is the caller's."""
    await register(platform, image(cpus=1), "fulfil")
    forged = Options(runner="pool", restarts=9, image=image("other", version=1, network="host", secrets=("root",)))
    await platform.ask(Start(instance="i-1", id="s-1", workflow="fulfil", options=forged))
    assert await options_of(platform, "i-1") == Options(runner=KIND, restarts=9, image=image(version=1, cpus=1))
    await platform.ask(Start(instance="i-2", id="s-2", workflow="wf", options=forged))
    assert await options_of(platform, "i-2") == Options(runner="pool", restarts=9)


async def test_a_worker_cannot_register_an_image(platform: Peer) -> None:
    workflow = Registration(workflow="wf", kind=KIND, options=Options(image=image(version=1)))
    with pytest.raises(Malformed, match="registry of images"):
        await platform.api("register", RegisterRequest(worker="w1", workflows=[workflow]), RegisterReply)


async def test_an_image_in_use_is_not_deleted_and_its_users_are_named(platform: Peer) -> None:
    await register(platform, image(), "fulfil")
    await platform.start("i-1", "fulfil")
    await register(platform, image(cpus=2), "fulfil")
    await platform.start("i-2", "fulfil")
    with pytest.raises(ImageInUse, match=r"orders@2 is in use by workflow fulfil, instance i-2"):
        await forget(platform, "orders", 2)
    with pytest.raises(ImageInUse, match=r"orders@1 is in use by instance i-1;"):
        await forget(platform, "orders", 1)
    with pytest.raises(ImageInUse, match=r"orders is in use by workflow fulfil, instance i-1, instance i-2"):
        await forget(platform, "orders")
    assert [view.image.version for view in await views(platform)] == [2, 1]

    await platform.ask(Cancel(instance="i-1", id="c-1"))
    assert await forget(platform, "orders", 1) == [1]
    await platform.api("forget", "fulfil", bool)
    await platform.ask(Cancel(instance="i-2", id="c-2"))
    assert await forget(platform, "orders") == [2]
    assert await views(platform) == []


async def test_many_users_are_named_in_part(platform: Peer) -> None:
    await register(platform, image(), "fulfil")
    for n in range(7):
        await platform.start(f"i-{n}", "fulfil")
    with pytest.raises(ImageInUse, match=r"instance i-4, and more;"):
        await forget(platform, "orders")


async def test_the_number_of_a_deleted_version_is_not_used_again(platform: Peer) -> None:
    await register(platform, image(), "fulfil")
    await platform.start("i-1", "fulfil")  # answered behind the registration
    await platform.api("forget", "fulfil", bool)
    await platform.ask(Cancel(instance="i-1", id="c-1"))
    assert await forget(platform, "orders") == [1]
    assert (await register(platform, image(), "fulfil")).view.image.version == 2


async def test_what_is_not_there_cannot_be_deleted(platform: Peer, deployed: Settings) -> None:
    await register(platform, image(), "fulfil")
    async with connect_peer(deployed, tenant="other") as other:
        with pytest.raises(ImageNotFound, match="no image orders in tenant 'other'"):
            await forget(other, "orders")
    with pytest.raises(ImageNotFound, match="no image orders@7"):
        await forget(platform, "orders", 7)


async def test_tenants_have_images_of_their_own(platform: Peer, deployed: Settings) -> None:
    await register(platform, image(), "fulfil")
    async with connect_peer(deployed, tenant="other") as other:
        assert await views(other) == []
        await register(other, image(reference="theirs:1"), "fulfil")
        await register(other, image(reference="theirs:2"), "fulfil")
        await other.start("i-1", "fulfil")
        assert (await options_of(other, "i-1")).image == image(version=2, reference="theirs:2")
    await platform.start("i-1", "fulfil")
    assert (await options_of(platform, "i-1")).image == image(version=1)


async def test_many_registering_at_once_get_versions_without_a_gap(platform: Peer, deployed: Settings) -> None:
    async with running(deployed):  # two engines answer
        images = [image(reference=f"orders:{n}") for n in range(12)]
        done = await asyncio.gather(*(register(platform, one, "fulfil") for one in images))
    assert sorted(one.view.image.version for one in done) == list(range(1, 13))


async def test_a_registration_that_one_journal_did_not_take_is_mended_by_asking_again(small: Peer) -> None:
    await fill(small, 1)
    with pytest.raises(PlatformUnreachable, match="journal of partition 1"):
        await register(small, image(), "fulfil")
    await empty(small, 1)
    again = await register(small, image(), "fulfil")
    assert (again.created, again.view.image.version) == (False, 1)
    for partition in range(2):
        instance = somewhere(small, partition, "i")
        assert (await small.start(instance, "fulfil")).error is None
        assert (await options_of(small, instance)).image == image(version=1)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"reference": ""}, "no reference of an image"),
    ({"reference": "orders:1 --privileged"}, "no reference of an image"),
    ({"reference": "-v"}, "no reference of an image"),
    ({"reference": "x" * 600}, "no reference of an image"),
    ({"reference": "orders@sha256:12"}, "is no digest"),
    ({"memory_bytes": 1024}, "at least 6 MiB"),
    ({"memory_bytes": -1}, "at least 6 MiB"),
    ({"cpus": -0.5}, "number of cores"),
    ({"cpus": 0.0}, "number of cores"),
    ({"cpus": 1e9}, "number of cores"),
    ({"pids": 0}, "at least 1"),
    ({"timeout_us": 0}, "longer than nothing"),
    ({"isolation": "pool", "timeout_us": 1_000_000}, "hosts many instances has no time-out"),
    ({"env": {"RUNTARA_NATS_URL": "nats://elsewhere"}}, "RUNTARA_NATS_URL cannot be set"),
    ({"env": {"runtara_tenant": "other"}}, "runtara_tenant cannot be set"),
    ({"env": {"A B": "c"}}, "no name of an environment variable"),
    ({"env": {"A=B": "c"}}, "no name of an environment variable"),
    ({"env": {"A": "b\0c"}}, "NUL"),
    ({"env": {f"V{n}": "x" for n in range(65)}}, "65 environment variables; the limit is 64"),
    ({"env": {"A": "é" * 10_000}}, "20,001 bytes; the limit is 16,384"),
    ({"secrets": ("../etc/shadow",)}, "no name of a secret"),
    ({"secrets": ("a", "a")}, "named twice"),
    ({"secrets": tuple(f"s{n}" for n in range(33))}, "33 secrets"),
]


@pytest.mark.parametrize(("fields", "reason"), BAD, ids=[f"{next(iter(f))}: {r}" for f, r in BAD])
async def test_what_no_container_could_run_under_is_refused(
    platform: Peer, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidImage, match=reason):
        await register(platform, image(**fields), "fulfil")
    assert await views(platform) == []


async def test_an_image_is_not_pooled_by_a_runner_that_keeps_no_pools(platform: Peer) -> None:
    jobs = Registration(workflow="fulfil", kind="kubernetes")
    with pytest.raises(InvalidImage, match="kind kubernetes keeps no container for many: use isolation instance"):
        await register(platform, image(isolation="pool"), jobs)
    assert await views(platform) == []
    await register(platform, image(isolation="pool"), "fulfil")
    await register(platform, image(), jobs)


@pytest.mark.parametrize(
    ("name", "workflows", "error"),
    [
        ("a.b", ["fulfil"], InvalidId),
        ("orders", ["ful.fil"], InvalidId),
        ("orders", [], InvalidImage),
        ("orders", ["fulfil", "fulfil"], InvalidImage),
        ("orders", [f"w{n}" for n in range(101)], InvalidImage),
    ],
)
async def test_names_are_checked(platform: Peer, name: str, workflows: list[str], error: type[RuntaraError]) -> None:
    with pytest.raises(error):
        await register(platform, image(name), *workflows)


@pytest.mark.parametrize("question", [b"[", b"{}", b'{"image":{},"workflows":[]}', b'{"name":5}', b'"x"'])
@pytest.mark.parametrize("verb", ["register_image", "forget_image", "images"])
async def test_a_bad_question_gets_a_clear_answer(platform: Peer, verb: str, question: bytes) -> None:
    reply = await platform.bus.nats.request(platform.subjects.api("default", verb), question, timeout=10)
    error = msgspec.json.decode(reply.data).get("error")
    if error is None:  # to be asked for nothing in particular is a legal question
        assert verb == "images"
        assert question in (b"{}", b'{"image":{},"workflows":[]}')
    else:
        assert error["code"] == "Malformed", error


async def test_a_limit_that_does_not_exist_is_refused_and_not_forgotten(platform: Peer) -> None:
    question = {"image": {"name": "a", "version": 0, "reference": "a", "memory": "256m"}, "workflows": []}
    with pytest.raises(Malformed, match="memory"):
        await platform.api("register_image", question, RegisteredImage)


@pytest.fixture
async def client(platform: Peer, deployed: Settings) -> AsyncIterator[Client]:
    async with Client(deployed) as client:
        yield client


async def test_the_client_registers_lists_and_deletes(client: Client) -> None:
    registered = await client.images.register(image(), [Registration(workflow="fulfil")])
    assert (await client.images.get("orders")).image == registered.view.image
    assert [view.image.name for view in await client.images.list()] == ["orders"]
    assert await client.images.list("nothing") == []
    with pytest.raises(ImageNotFound, match="no image nothing in tenant 'default'"):
        await client.images.get("nothing")
    with pytest.raises(ImageNotFound, match="orders@2"):
        await client.images.get("orders", version=2)
    with pytest.raises(InvalidImage):
        await client.images.register(image(cpus=-1), [Registration(workflow="fulfil")])
    handle = await client.start("fulfil", id="i-1")
    await handle.cancel()
    await client.forget_workflow("fulfil")
    await (await client.start("wf", id="i-2")).cancel()  # answered behind it
    assert await client.images.delete("orders", version=1) == [1]


async def test_the_blocking_client_has_them_too(platform: Peer, deployed: Settings) -> None:
    def blocking() -> list[str]:
        with sync.Client.connect(deployed) as client:
            client.images.register(image(), [Registration(workflow="fulfil")])
            return [view.image.name for view in client.images.list()]

    assert await asyncio.to_thread(blocking) == ["orders"]
