"""What each kind of credential may publish and subscribe to: the whole table of rights, and nothing else has any.

Invariants: nobody may subscribe but to its own inbox and what is said to it (a tenant's client also to the tenant's
ends); only `worker` and `runner` reach the run queue, and there only what their account imports; nobody in a tenant
may publish control, hints or an answer; a container speaks for its instance alone.
"""

from collections.abc import Sequence
from typing import Final, assert_never

import msgspec

from runtara.protocol.credentials import Kind
from runtara.protocol.errors import InvalidId
from runtara.protocol.ids import check_id
from runtara.protocol.subjects import Subjects as Names
from runtara.protocol.subjects import inbox_prefix

from .jwt import UNLIMITED, Subjects, UserBody

NO_TENANT: Final = ""  # of those in the platform's or the system's account
_READ_VERBS: Final = (
    "info", "list", "tail", "workflows", "schedule_list", "schedule_get", "images", "connections", "definitions",
    "definition", "credential", "blob",
)  # fmt: skip
_READ_INSTANCE_VERBS: Final = ("get", "events", "memos", "result", "credential", "blob")
_WORKER_VERBS: Final = ("info", "register", "host_definitions", "definition", "credential")
_LAUNCHED_VERBS: Final = ("info", "credential")  # of a worker that hosts what its runner gave it, and registers nothing
_WORKER_INSTANCE_VERBS: Final = ("get", "events", "memos", "position", "connection", "blob_put", "blob")
_TAG: Final = "runtara"

# who may have which kinds issued, in its own tenant; an operator in any
MAY_ISSUE: Final[dict[Kind, frozenset[Kind]]] = {
    Kind.OPERATOR: frozenset({Kind.CLIENT, Kind.READER, Kind.WORKER, Kind.RUNNER, Kind.CONTAINER}),
    Kind.RUNNER: frozenset({Kind.WORKER, Kind.CONTAINER}),
    Kind.WORKER: frozenset({Kind.CLIENT}),  # its code may start and signal others of its tenant
    Kind.CLIENT: frozenset({Kind.CONTAINER}),  # a script that speaks for an instance
}
PLATFORM_KINDS: Final = frozenset({Kind.OPERATOR, Kind.ENGINE, Kind.ANSWERING, Kind.SYSTEM})
LIFE_SECONDS: Final[dict[Kind, int]] = {
    Kind.CLIENT: 24 * 3600,
    Kind.READER: 24 * 3600,
    Kind.WORKER: 24 * 3600,
    Kind.RUNNER: 24 * 3600,
    Kind.CONTAINER: 3600,
    Kind.OPERATOR: 24 * 3600,  # whoever signs it for itself may have a clock that is hours behind
    Kind.ENGINE: 30 * 24 * 3600,  # it signs them itself, and a reconnect of an engine costs a take-over
    Kind.ANSWERING: 30 * 24 * 3600,
    Kind.SYSTEM: 30 * 24 * 3600,
}


class Holder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose it is; `tenant` is empty for the platform's own.

    `instance` and `partition`: of a container. `consumers`: all that it may pull from, if given; a worker with some is
    one that a runner has launched for them: it registers nothing, and has no credential issued for its code.
    """

    kind: Kind
    tenant: str
    user: str
    deployment: str
    instance: str | None = None
    partition: int | None = None
    consumers: tuple[str, ...] = ()

    @property
    def inbox(self) -> str:
        """The platform's own are outside of `_INBOX`, so no tenant's account imports them, whatever its id."""
        return inbox_prefix(self.tenant, self.user) if self.tenant else platform_inbox(self.kind, self.user)


def may_issue(holder: Holder) -> frozenset[Kind]:
    """Of which kinds `holder` may have credentials issued."""
    if holder.kind is Kind.WORKER and holder.consumers:
        return frozenset()
    return MAY_ISSUE.get(holder.kind, frozenset())


def platform_inbox(kind: Kind, user: str) -> str:
    return f"_PLATFORM.{kind}.{user}"


def user_body(holder: Holder, account: str) -> UserBody:
    """The claims of `holder`'s JWT, as a user of `account` (its public key)."""
    check_id(holder.user, "user")
    if (holder.kind in PLATFORM_KINDS) != (holder.tenant == NO_TENANT):
        raise InvalidId(kind="tenant", value=repr(holder.tenant))
    if holder.tenant:
        check_id(holder.tenant, "tenant")
    publish, subscribe = _rights(holder)
    return UserBody(
        issuer_account=account,
        pub=Subjects(allow=publish),
        sub=Subjects(allow=[f"{holder.inbox}.>", *subscribe]),
        subs=UNLIMITED,
        data=UNLIMITED,
        payload=UNLIMITED,
        tags=[f"{_TAG}:{msgspec.json.encode(holder).decode()}"],
    )


def holder_of(body: object) -> Holder | None:
    """Whom a JWT of ours is of; None if it is not of ours. Nothing is proved by it."""
    tags = body.tags if isinstance(body, UserBody) else []
    for tag in tags:
        prefix, _, text = tag.partition(":")
        if prefix == _TAG:
            try:
                return msgspec.json.decode(text, type=Holder)
            except msgspec.MsgspecError:
                return None
    return None


def _rights(holder: Holder) -> tuple[list[str], list[str]]:
    """What it may publish, and subscribe to beside its inbox."""
    names, t, u = Names(holder.deployment), holder.tenant, holder.user
    d = holder.deployment
    match holder.kind:
        case Kind.CLIENT:
            return [f"{d}.commands.*.{t}.{u}", f"{d}.api.{t}.>"], _ends(names, t)
        case Kind.READER:
            return [*_verbs(d, t, _READ_VERBS), *_verbs(d, f"{t}.*", _READ_INSTANCE_VERBS)], _ends(names, t)
        case Kind.WORKER:
            publish = [f"{d}.reports.*.{t}.w.{u}", names.heartbeat(t, u)]
            verbs = _LAUNCHED_VERBS if holder.consumers else _WORKER_VERBS
            publish += [*_verbs(d, t, verbs), *_verbs(d, f"{t}.*", _WORKER_INSTANCE_VERBS)]
            return [*publish, *_queue(names, holder.consumers)], [names.control(t, u)]
        case Kind.RUNNER:
            publish = [f"{d}.runner.*.{t}.{u}", names.heartbeat(t, u), f"{d}.api.{t}.>"]
            return [*publish, *_queue(names, holder.consumers)], [names.control(t, "*"), *_ends(names, t)]
        case Kind.CONTAINER:
            return _container(names, holder), [names.control(t, u)]
        case Kind.OPERATOR:
            return [f"{d}.api.*.credential", f"{d}.api.*.info"], []
        case Kind.ENGINE:
            publish = [f"{d}.engine.*", f"{d}.run.>", "$JS.API.>"]
            return publish, [f"{d}.api.>", names.heartbeats, "$SRV.>"]
        case Kind.ANSWERING:
            # `_R_` is how the server names the inbox of another account's question
            operators = platform_inbox(Kind.OPERATOR, ">")
            publish = [
                "_INBOX.>",
                "_R_.>",
                operators,
                names.control("*", "*"),
                names.done("*", "*"),
                names.committed_all,
            ]
            return publish, []
        case Kind.SYSTEM:
            return ["$SYS.REQ.>"], ["$SYS.ACCOUNT.*.DISCONNECT", "$SYS.SERVER.*.CLIENT.AUTH.ERR"]
        case _:
            assert_never(holder.kind)


def _container(names: Names, holder: Holder) -> list[str]:
    assert holder.instance is not None
    assert holder.partition is not None
    tenant, instance = holder.tenant, check_id(holder.instance, "instance")
    return [
        names.instance_reports(holder.partition, tenant, instance),
        names.heartbeat(tenant, holder.user),
        f"{names.deployment}.api.{tenant}.{instance}.>",
        names.api(tenant, "info"),
    ]


def _verbs(deployment: str, address: str, verbs: Sequence[str]) -> list[str]:
    return [f"{deployment}.api.{address}.{verb}" for verb in verbs]


def _ends(names: Names, tenant: str) -> list[str]:
    return [names.done(tenant, "*"), names.committed_all]


def _queue(names: Names, consumers: Sequence[str]) -> list[str]:
    """Pulling and acknowledging. Which consumers a tenant has at all is in the imports of its account."""
    return [subject for consumer in consumers or ("*",) for subject in queue_subjects(names, consumer)]


def queue_subjects(names: Names, consumer: str) -> tuple[str, str]:
    stream = names.run_stream
    return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", f"$JS.ACK.{stream}.{consumer}.>"
