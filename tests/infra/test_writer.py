"""What the journal writer waits for, and what ends it: on real servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtara.engine.streams import create_stream, journal_config
from runtara.infra import bus as bus_module
from runtara.infra import writer as writer_module
from runtara.infra.bus import Bus, LoginRefused, PayloadTooLarge, PublishRefused
from runtara.infra.login import PasswordLogin
from runtara.infra.refusals import MEANINGS, NeverStored, check_passes, meaning_of
from runtara.infra.writer import JournalWriter
from runtara.protocol.errors import NotAllowed, RuntaraError, StreamMissing
from runtara.protocol.subjects import Subjects
from tests.support.nats import OwnNats, own_nats
from tests.support.polling import eventually
from tests.support.proxy import proxy_of

SUBJECTS = Subjects("t")
JOURNAL = SUBJECTS.journal_stream(0)
LOGIN = "authorization { users: [ { user: runtara, password: secret } ] }"
ANOTHER_LOGIN = LOGIN.replace("secret", "changed")
ONE_SUBJECT = """authorization { users: [
  { user: admin, password: secret }
  { user: runtara, password: secret, permissions: { publish: "t.reports.0.default.w.w1", subscribe: "_INBOX.>" } }
] }"""


@asynccontextmanager
async def connected(url: str, *, user: str = "runtara") -> AsyncIterator[Bus]:
    login = PasswordLogin(user=user, password="secret")
    async with await Bus.connect(url, name="t", inbox="_INBOX.default.w1", login=login) as bus:
        yield bus


async def create_journal(bus: Bus, **changes: object) -> None:
    config = journal_config(SUBJECTS, 0, deployment_id="test", max_bytes=8_000_000, replicas=1)
    await create_stream(bus, config)
    if changes:
        update = {"name": JOURNAL, "subjects": config.subjects, "max_bytes": config.max_bytes, "discard": "new"}
        await bus.jetstream(f"STREAM.UPDATE.{JOURNAL}", {**update, **changes})


class Desk:
    """A writer of worker `worker`, and what it was ended by."""

    def __init__(self, bus: Bus, worker: str = "w1") -> None:
        self.fatal: list[RuntaraError] = []
        subject = SUBJECTS.worker_reports(0, "default", worker)
        self.writer = JournalWriter(bus, lambda _: subject, on_fatal=self.fatal.append)

    async def store(self, record: bytes) -> int:
        async with asyncio.timeout(20):
            return await self.writer.send(0, record)

    async def ends_with(self, error: type[RuntaraError], record: bytes, *, match: str) -> None:
        """The record's sender and `on_fatal` are told alike, and nothing is taken any more."""
        with pytest.raises(error, match=match):
            await self.store(record)
        assert [type(e) for e in self.fatal] == [error]
        with pytest.raises(error):
            await self.store(b"1")


@asynccontextmanager
async def desk_on(bus: Bus, worker: str = "w1") -> AsyncIterator[Desk]:
    desk = Desk(bus, worker)
    try:
        yield desk
    finally:
        await desk.writer.close()


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[OwnNats]:
    async with own_nats(tmp_path, LOGIN) as nats:
        yield nats


@pytest.fixture
async def bus(nats: OwnNats) -> AsyncIterator[Bus]:
    async with connected(nats.url) as bus:
        yield bus


async def test_a_record_that_is_too_large_for_the_stream_ends_it_and_says_which_limit_to_lift(bus: Bus) -> None:
    await create_journal(bus, max_msg_size=1_000)
    async with desk_on(bus) as desk:
        assert await desk.store(b'"fits"') == 1
        await desk.ends_with(NeverStored, b'"%s"' % (b"x" * 2_000), match=r"max_msg_size.*\(10054\)")


async def test_a_record_that_is_too_large_for_the_server_ends_it_and_says_which_limit_to_lift(
    tmp_path: Path,
) -> None:
    async with own_nats(tmp_path, f"max_payload: 50000\n{LOGIN}") as nats, connected(nats.url) as bus:
        await create_journal(bus)
        async with desk_on(bus) as desk:
            await desk.ends_with(PayloadTooLarge, b'"%s"' % (b"x" * 60_000), match="raise its max_payload")


async def test_a_sealed_stream_ends_it(bus: Bus) -> None:
    await create_journal(bus, sealed=True)
    async with desk_on(bus) as desk:
        await desk.ends_with(NeverStored, b"1", match="sealed")


async def test_a_missing_right_ends_it(tmp_path: Path) -> None:
    async with own_nats(tmp_path, ONE_SUBJECT) as nats, connected(nats.url, user="admin") as admin:
        await create_journal(admin)
        async with connected(nats.url) as bus, desk_on(bus) as mine, desk_on(bus, "w2") as foreign:
            assert await mine.store(b"1") == 1
            await foreign.ends_with(NotAllowed, b"1", match=r"t\.reports\.0\.default\.w\.w2")
            assert await mine.store(b"1") == 2


async def test_a_password_that_is_changed_ends_it_at_once_even_if_it_has_nothing_to_say(
    nats: OwnNats, bus: Bus
) -> None:
    await create_journal(bus)
    async with desk_on(bus) as desk:
        nats.configure(ANOTHER_LOGIN)
        nats.reload()
        await eventually(lambda: desk.fatal)
        await desk.ends_with(LoginRefused, b"1", match="does not accept this credential")


async def test_a_credential_that_expires_ends_it_at_once(nats: OwnNats) -> None:
    async with proxy_of(nats.url) as proxy, connected(proxy.url) as bus, desk_on(bus) as desk:
        proxy.say(b"-ERR 'User Authentication Expired'\r\n")
        await eventually(lambda: desk.fatal)
        await desk.ends_with(LoginRefused, b"1", match="authentication expired")


async def test_what_else_a_server_says_does_not_end_the_connection(nats: OwnNats) -> None:
    async with proxy_of(nats.url) as proxy, connected(proxy.url) as bus, desk_on(bus) as desk:
        await create_journal(bus)
        proxy.say(b"-ERR 'Maximum Subscriptions Exceeded'\r\n")
        assert await desk.store(b"1") == 1
        assert desk.fatal == []


async def test_a_login_that_stays_refused_while_it_reconnects_ends_it(
    nats: OwnNats, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "REFUSED_LOGIN_SECONDS", 0.3)
    async with desk_on(bus) as desk:
        await nats.server.stop()
        nats.configure(ANOTHER_LOGIN)
        await nats.server.start()
        await desk.ends_with(LoginRefused, b"1", match="Authorization Violation")


async def test_a_login_that_is_refused_for_a_moment_only_delays_it(nats: OwnNats, bus: Bus) -> None:
    await create_journal(bus)
    async with desk_on(bus) as desk:
        await nats.server.stop()
        nats.configure(ANOTHER_LOGIN)
        await nats.server.start()
        stored = asyncio.ensure_future(desk.store(b"1"))
        await eventually(lambda: bus._bad_login)
        nats.configure(LOGIN)
        nats.reload()
        assert await stored == 1
        assert desk.fatal == []


async def test_a_first_login_that_is_refused_says_so(nats: OwnNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "CONNECT_TIMEOUT_SECONDS", 0.5)
    login = PasswordLogin(user="runtara", password="wrong")
    with pytest.raises(LoginRefused, match="see RUNTARA_NATS_CREDENTIALS, or RUNTARA_NATS_USER"):
        await Bus.connect(nats.url, name="t", inbox="_INBOX.default.w1", login=login)


async def test_a_stream_that_stays_missing_ends_it(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MISSING_STREAM_SECONDS", 0.5)
    async with desk_on(bus) as desk:
        await desk.ends_with(StreamMissing, b"1", match="runtara migrate")


async def test_a_stream_that_is_missing_for_a_moment_only_delays_it(bus: Bus) -> None:
    async with desk_on(bus) as desk:
        stored = asyncio.ensure_future(desk.store(b"1"))
        done, _ = await asyncio.wait({stored}, timeout=0.3)
        assert not done
        await create_journal(bus)
        assert await stored == 1


@pytest.mark.parametrize(
    ("text", "jetstream", "code"),
    [
        (LOGIN, "max_file_store: 9M", 10023),
        (
            "accounts { A: { users: [ { user: runtara, password: secret } ], jetstream: { max_file: 9M } } }",
            "",
            10002,
        ),
    ],
    ids=["of the server", "of the account"],
)
async def test_storage_that_is_used_up_only_delays_it(tmp_path: Path, text: str, jetstream: str, code: int) -> None:
    """The limit lies above what the journal reserves; a stream beside it takes the rest."""
    async with own_nats(tmp_path, text, jetstream=jetstream) as nats, connected(nats.url) as bus:
        await create_journal(bus)
        await bus.jetstream("STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["other"], "retention": "limits"})
        assert await fill(bus, "other") == code
        async with desk_on(bus) as desk:
            stored = asyncio.ensure_future(desk.store(b"1"))
            done, _ = await asyncio.wait({stored}, timeout=0.5)
            assert not done
            await bus.jetstream("STREAM.PURGE.OTHER")
            assert await stored == 1
            assert desk.fatal == []


async def fill(bus: Bus, subject: str) -> int:
    """Publish until not even a byte is taken, and the code with which it is refused."""
    size = 500_000
    for _ in range(1_000):
        try:
            await bus.publish_acked(subject, b"x" * size)
        except PublishRefused as refused:
            if size == 1:
                return refused.code
            size //= 2
    raise AssertionError("there is more room than there should be")


@pytest.mark.parametrize(
    ("code", "status", "passes"),
    [(10077, 503, True), (10008, 503, True), (10054, 400, False), (99_999, 503, True), (99_999, 429, True),
     (99_999, 400, False)],
)  # fmt: skip
def test_a_refusal_goes_by_the_table_and_an_unknown_one_by_its_status(code: int, status: int, passes: bool) -> None:
    refused = PublishRefused(subject="s", stream="S", reason="r", code=code, status=status)
    assert meaning_of(refused).passes is passes
    if passes:
        check_passes(refused)
    else:
        with pytest.raises(NeverStored):
            check_passes(refused)


def test_whatever_never_passes_says_what_to_do() -> None:
    for meaning in MEANINGS.values():
        assert meaning.why
        assert bool(meaning.advice) is not meaning.passes
