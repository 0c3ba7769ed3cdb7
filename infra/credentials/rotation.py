"""Other keys in place of those that sign: written into the deployment's file, from which every engine takes them.

Of the keys that sign users the next generation is drawn, with the times at which it begins and its predecessors end
(`generations`). The operator's signing key takes two steps, because a server reads whom it trusts only when it starts
(m: it takes an account that is signed by anybody, and then lets nobody in): `draw_operator` writes an operator's JWT
that trusts both, with which servers are restarted; `use_operator` signs with the new one, and trusts it alone.

Invariant: nothing is signed with a key before it is in what the server was, or will be, told to trust.
"""

import secrets
import time
from pathlib import Path

import msgspec

from runtara.protocol.errors import InvalidSetting

from .generations import Generation, announced, rotated
from .keyring import FILE, OPERATOR_FILE, SECRET_BYTES, Kept, KeyRing, operator_jwt
from .keys import Key, Role

_SETTING = "nats_keys"


def rotate_users(folder: Path, *, after: float, old_for: float) -> Generation:
    """Draw what signs users in `after` seconds; what was signed until then is good for `old_for` seconds more."""
    now = time.time()
    kept = Kept.read(folder)
    generations = kept.generations or [Generation(secret=kept.secret)]
    waiting = announced(generations, now)
    if waiting is not None:
        reason = f"the last rotation begins to sign in {waiting.active_from - now:.0f} s: wait for that"
        raise InvalidSetting(name=_SETTING, value=str(folder), reason=reason)
    active_from = int(now + after)
    secret, ends_at = secrets.token_hex(SECRET_BYTES), round(active_from + old_for)
    made = rotated(generations, secret, active_from=active_from, ends_at=ends_at, now=now)
    msgspec.structs.replace(kept, generations=made).write(folder)
    return made[-1]


def draw_operator(folder: Path, operator_key: Path | None) -> str:
    """Draw the operator's next signing key, unless that was done; its public half."""
    kept, operator = Kept.read(folder), _operator_key(folder, operator_key)
    following = Key.new(Role.OPERATOR) if kept.next_signing_seed is None else _key(kept.next_signing_seed)
    both, system = [_key(kept.signing_seed).public, following.public], KeyRing(kept).system_account
    msgspec.structs.replace(
        kept,
        operator_jwt=operator_jwt(operator, both, system),
        next_signing_seed=following.seed,
        next_operator_jwt=operator_jwt(operator, [following.public], system),
    ).write(folder)
    return following.public


def drawn_operator(folder: Path) -> str | None:
    """The public half of the key that `draw_operator` drew and nothing has been signed with."""
    seed = Kept.read(folder).next_signing_seed
    return None if seed is None else _key(seed).public


def use_operator(folder: Path) -> None:
    """From now on accounts are signed with the key that was drawn. The operator's own is not needed for it."""
    kept = Kept.read(folder)
    assert kept.next_signing_seed is not None
    assert kept.next_operator_jwt is not None
    msgspec.structs.replace(
        kept,
        operator_jwt=kept.next_operator_jwt,
        signing_seed=kept.next_signing_seed,
        next_signing_seed=None,
        next_operator_jwt=None,
    ).write(folder)


def _operator_key(folder: Path, file: Path | None) -> Key:
    file = file or folder / OPERATOR_FILE
    try:
        return _key(file.read_text())
    except OSError as exc:
        reason = f"the operator's own key, which has to sign this, cannot be read: {exc}; name its file: --operator-key"
        raise InvalidSetting(name=_SETTING, value=str(folder / FILE), reason=reason) from exc


def _key(seed: str) -> Key:
    return Key.read(seed, what=_SETTING)
