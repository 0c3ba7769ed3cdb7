"""Commands that an instance's events make for other instances: children to start or to cancel, parents to tell.

Pure. Their ids derive from (tenant, instance, version, target), so that a command made again, after a re-fold or a
resend, is the same command.
"""

from typing import assert_never

from msgspec.structs import replace

from runtara.protocol.events import (
    AnyEvent,
    ChildRequested,
    InstanceCancelled,
    InstanceCompleted,
    InstanceContinued,
    InstanceFailed,
)
from runtara.protocol.ids import derived_name
from runtara.protocol.records import Cancel, ChildDone, Parent, Record, Start

from .evolve_waits import asked_before
from .state import State

End = InstanceCompleted | InstanceFailed | InstanceCancelled


def outbox_commands(before: State | None, event: AnyEvent, after: State, tenant: str, instance: str) -> list[Record]:
    """What `event` of (tenant, instance), which led from `before` to `after`, has others do; in order."""
    match event:
        case ChildRequested():
            if before is not None and asked_before(before, event.key or "") is not None:  # it was started then
                return []
            return [_start(event, after, tenant, instance)]
        case InstanceCompleted() | InstanceFailed() | InstanceCancelled():
            commands = _cancel_children(before, after, tenant, instance)
            return [*commands, _tell(after.parent, event, after, tenant, instance)] if after.parent else commands
        case InstanceContinued():
            return _cancel_children(before, after, tenant, instance)
        case _:
            return []


def _id(tenant: str, instance: str, version: int, target: str) -> str:
    return derived_name("o", tenant, instance, str(version), target)


def _start(event: ChildRequested, after: State, tenant: str, instance: str) -> Start:
    request = event.request
    return Start(
        id=_id(tenant, instance, after.version, event.child),
        instance=event.child,
        tenant=tenant,
        workflow=request.workflow,
        input=request.input,
        blob=request.blob,
        options=request.options,
        labels=request.labels,
        version=request.version,
        parent=Parent(instance=instance, key=event.key or "", depth=after.parent.depth + 1 if after.parent else 1),
    )


def _cancel_children(before: State | None, after: State, tenant: str, instance: str) -> list[Record]:
    children = before.children.values() if before is not None else ()
    return [
        Cancel(
            id=_id(tenant, instance, after.version, child.instance),
            instance=child.instance,
            tenant=tenant,
            reason=f"its parent {instance} has ended",
        )
        for child in children
        if child.cancel
    ]


def _tell(parent: Parent, event: End, after: State, tenant: str, instance: str) -> ChildDone:
    told = ChildDone(
        id=_id(tenant, instance, after.version, parent.instance),
        instance=parent.instance,
        tenant=tenant,
        key=parent.key,
        child=instance,
        status="cancelled",
    )
    match event:
        case InstanceCompleted():
            return replace(told, status="completed", result=event.result, blob=event.blob)
        case InstanceFailed():
            return replace(told, status="failed", error=event.error)
        case InstanceCancelled():
            return told
        case _:
            assert_never(event)
