"""What an image may be registered with. Checked where it is typed, and again where it is stored.

Invariants: whatever passes here can be handed to a container engine; names that we set ourselves in a container
(`RUNTARA_…`) are nobody else's; what is kept in the log of every instance stays small.
"""

import math
import re
from typing import Final

from .errors import InvalidImage
from .ids import check_id, is_id
from .limits import (
    MAX_IMAGE_ENV,
    MAX_IMAGE_ENV_BYTES,
    MAX_IMAGE_REFERENCE_LENGTH,
    MAX_IMAGE_SECRETS,
    MIN_IMAGE_MEMORY_BYTES,
)
from .records import Image

WORKFLOWS_LABEL: Final = "dev.runtara.workflows"  # of an image: what it hosts, as a JSON array of registrations
KIND: Final = "docker"  # of the runner, unless the registration names another of these
KINDS: Final = (KIND, "kubernetes")
POOLING: Final = frozenset({KIND})  # those that keep a container for many instances
RESERVED_ENV: Final = "RUNTARA_"
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LARGEST: Final = 2**63 - 1  # of a column; nobody has that much of anything


def check_image(image: Image) -> Image:
    """Return `image` if it can be registered. Raises `InvalidId`, `InvalidImage` naming what is wrong."""
    check_id(image.name, "image")
    problem = _reference_problem(image.reference) or _limit_problem(image) or _env_problem(image.env)
    problem = problem or _secrets_problem(image.secrets)
    if problem is not None:
        raise InvalidImage(image=image.name, reason=problem)
    return image


def split_reference(reference: str) -> tuple[str, str | None]:
    """`(name, digest)`; the digest is None where the reference names none."""
    name, _, digest = reference.rpartition("@")
    return (name, digest) if name else (reference, None)


def _reference_problem(reference: str) -> str | None:
    if len(reference) > MAX_IMAGE_REFERENCE_LENGTH or _REFERENCE.fullmatch(reference) is None:
        return f"{reference[:80]!r} is no reference of an image; write one like registry/name:tag or name@sha256:…"
    _, digest = split_reference(reference)
    if digest is not None and _DIGEST.fullmatch(digest) is None:
        return f"{digest[:80]!r} is no digest: sha256: and 64 hex digits"
    return None


def _limit_problem(image: Image) -> str | None:
    memory, cpus = image.memory_bytes, image.cpus
    if memory is not None and not MIN_IMAGE_MEMORY_BYTES <= memory <= _LARGEST:
        return f"{memory:,} bytes of memory: a container gets at least {MIN_IMAGE_MEMORY_BYTES // 1024**2} MiB"
    if cpus is not None and not (math.isfinite(cpus) and 0.01 <= cpus <= 1024):
        return f"{cpus:g} cpus: give a number of cores from 0.01 to 1,024, like 0.5"
    if image.pids is not None and not 1 <= image.pids <= _LARGEST:
        return f"{image.pids} pids: give at least 1"
    if image.timeout_us is not None and not 1 <= image.timeout_us <= _LARGEST:
        return "a time-out must be longer than nothing"
    if image.timeout_us is not None and image.isolation == "pool":
        return "a container that hosts many instances has no time-out; give the workflow one: @workflow(timeout=…)"
    return None


def _env_problem(env: dict[str, str]) -> str | None:
    if len(env) > MAX_IMAGE_ENV:
        return f"{len(env)} environment variables; the limit is {MAX_IMAGE_ENV}"
    size = sum(len(name.encode()) + len(value.encode()) for name, value in env.items())
    if size > MAX_IMAGE_ENV_BYTES:
        return (
            f"its environment has {size:,} bytes; the limit is {MAX_IMAGE_ENV_BYTES:,}: it is kept with every instance"
        )
    for name, value in env.items():
        if _ENV_NAME.fullmatch(name) is None:
            return f"{name[:80]!r} is no name of an environment variable: use letters, digits and '_'"
        if name.upper().startswith(RESERVED_ENV):
            return f"{name[:80]} cannot be set: names with {RESERVED_ENV} are the platform's own"
        if "\0" in value:
            return f"the value of {name} has a NUL character"
    return None


def _secrets_problem(secrets: tuple[str, ...]) -> str | None:
    if len(secrets) > MAX_IMAGE_SECRETS:
        return f"{len(secrets)} secrets; the limit is {MAX_IMAGE_SECRETS}"
    for name in secrets:
        if not is_id(name):
            return f"{name[:80]!r} is no name of a secret: use 1 to 128 letters, digits, '_' or '-'"
    if len(set(secrets)) < len(secrets):
        return "a secret is named twice"
    return None
