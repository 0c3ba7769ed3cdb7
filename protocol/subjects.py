"""Subjects, streams and consumer names of one deployment, made and read in one place.

Invariants: every token of a subject is a checked id or a number, and what a subject says (tenant, worker,
instance) is what its publisher was allowed to say, so it outranks what the message says of itself.
"""

from enum import StrEnum

import msgspec

from .errors import Malformed
from .ids import check_id, derived_name, is_id


class Channel(StrEnum):
    """Who may speak on a journal subject; its second token."""

    COMMANDS = "commands"
    REPORTS = "reports"
    RUNNER = "runner"
    ENGINE = "engine"


class Source(msgspec.Struct, frozen=True):
    """What a journal subject says of its publisher. Reports have `instance` or `worker`; engines have no `tenant`."""

    channel: Channel
    partition: int
    tenant: str = ""
    client: str | None = None
    worker: str | None = None
    instance: str | None = None
    runner: str | None = None


class Subjects(msgspec.Struct, frozen=True):
    """The names of deployment `deployment` (its first token, stream prefix and Postgres schema)."""

    deployment: str = "runtara"

    def __post_init__(self) -> None:
        check_id(self.deployment, "deployment")

    # journal

    def journal_stream(self, partition: int) -> str:
        return f"{self.deployment.upper()}-JOURNAL-{partition}"

    def journal_subjects(self, partition: int) -> list[str]:
        d = self.deployment
        return [
            f"{d}.commands.{partition}.*.*",
            f"{d}.reports.{partition}.*.*.*",
            f"{d}.runner.{partition}.*.*",
            f"{d}.engine.{partition}",
        ]

    def commands(self, partition: int, tenant: str, client: str) -> str:
        return f"{self.deployment}.commands.{partition}.{tenant}.{client}"

    def worker_reports(self, partition: int, tenant: str, worker: str) -> str:
        return f"{self.deployment}.reports.{partition}.{tenant}.w.{worker}"

    def instance_reports(self, partition: int, tenant: str, instance: str) -> str:
        return f"{self.deployment}.reports.{partition}.{tenant}.i.{instance}"

    def runner(self, partition: int, tenant: str, runner: str) -> str:
        return f"{self.deployment}.runner.{partition}.{tenant}.{runner}"

    def engine(self, partition: int) -> str:
        return f"{self.deployment}.engine.{partition}"

    def parse_journal(self, subject: str) -> Source:
        """What a journal subject says; `Malformed` if it is none of ours."""
        tokens = subject.split(".")
        match tokens:
            case [_, "commands", p, tenant, client] if is_id(tenant) and is_id(client):
                return Source(Channel.COMMANDS, _number(p), tenant, client=client)
            case [_, "reports", p, tenant, "w", worker] if is_id(tenant) and is_id(worker):
                return Source(Channel.REPORTS, _number(p), tenant, worker=worker)
            case [_, "reports", p, tenant, "i", instance] if is_id(tenant) and is_id(instance):
                return Source(Channel.REPORTS, _number(p), tenant, instance=instance)
            case [_, "runner", p, tenant, runner] if is_id(tenant) and is_id(runner):
                return Source(Channel.RUNNER, _number(p), tenant, runner=runner)
            case [_, "engine", p]:
                return Source(Channel.ENGINE, _number(p))
        raise Malformed(reason=f"subject {subject!r} has none of the journal's forms")

    # run queue

    @property
    def run_stream(self) -> str:
        return f"{self.deployment.upper()}-RUN"

    @property
    def run_subjects(self) -> list[str]:
        return [f"{self.deployment}.run.>"]

    def run(self, kind: str, tenant: str, workflow: str, instance: str, attempt: int) -> str:
        return f"{self.deployment}.run.{kind}.{tenant}.{workflow}.{instance}.{attempt}"

    def run_filter(self, kind: str, tenant: str, workflow: str | None) -> str:
        """Run requests of a workflow, or of all of that kind."""
        return f"{self.deployment}.run.{kind}.{tenant}.{'' if workflow is None else f'{workflow}.'}>"

    def run_consumer(self, run_filter: str) -> str:
        return derived_name("run", run_filter)

    # core NATS

    def control(self, tenant: str, worker: str) -> str:
        return f"{self.deployment}.control.{tenant}.{worker}"

    def heartbeat(self, tenant: str, worker: str) -> str:
        return f"{self.deployment}.heartbeat.{tenant}.{worker}"

    @property
    def heartbeats(self) -> str:
        return f"{self.deployment}.heartbeat.*.*"

    def parse_heartbeat(self, subject: str) -> tuple[str, str] | None:
        """(tenant, worker) of a heartbeat's subject."""
        match subject.split("."):
            case [_, "heartbeat", tenant, worker] if is_id(tenant) and is_id(worker):
                return tenant, worker
        return None

    def committed(self, partition: int) -> str:
        return f"{self.deployment}.committed.{partition}"

    @property
    def committed_all(self) -> str:
        """The hints of every partition."""
        return f"{self.deployment}.committed.*"

    def done(self, tenant: str, instance: str) -> str:
        return f"{self.deployment}.done.{tenant}.{instance}"

    def api(self, tenant: str, verb: str, instance: str | None = None) -> str:
        middle = f"{tenant}.{instance}" if instance else tenant
        return f"{self.deployment}.api.{middle}.{verb}"

    def inbox(self, tenant: str, user: str) -> str:
        """The prefix under which one user of a tenant may receive answers."""
        return inbox_prefix(tenant, user)


def inbox_prefix(tenant: str, user: str) -> str:
    return f"_INBOX.{tenant}.{user}"


def may_answer(tenant: str, reply: str) -> bool:
    """Whether an answer may go to `reply`: only to an inbox of the subject's tenant, with plain tokens."""
    tokens = reply.split(".")
    return len(tokens) > 2 and tokens[0] == "_INBOX" and tokens[1] == tenant and all(map(is_id, tokens[1:]))


def _number(token: str) -> int:
    if not token.isascii() or not token.isdigit() or len(token) > 6:
        raise Malformed(reason=f"{token[:20]!r} is not a partition number")
    return int(token)
