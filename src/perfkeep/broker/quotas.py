"""How much of the machine a user's recordings take, and may take. Pure but for one sysctl."""

from __future__ import annotations

import errno
import mmap
import os

from perfkeep.broker.policy import Policy, Quota
from perfkeep.broker.registry import Recording, Registry
from perfkeep.errors import BrokerError
from perfkeep.kernel import cpus, sysctl
from perfkeep.units import format_size
from perfkeep.wire.messages import Usage
from perfkeep.wire.sideband import RING_BYTES


def default_for(uid: int, broker_uid: int) -> Quota:
    """What a user may have where no policy says otherwise.

    In one's own instance the kernel counts and limits. In another's the keeper maps the rings,
    and the kernel charges its user and not the one who asked; so here they are held to what the
    kernel would have let them lock by perf_event_mlock_kb.
    """
    if uid in (0, broker_uid):
        return Quota()
    per_cpu = int(sysctl.read("kernel.perf_event_mlock_kb")) << 10
    return Quota(recordings=64, events=4096, rings=per_cpu * len(cpus.online()))


def used(registry: Registry, uid: int | None) -> tuple[int, int, int]:
    """Recordings, events and bytes of rings, of one user or of all."""
    mine = [one for one in registry if uid is None or one.owner.uid == uid]
    each = [used_by(one) for one in mine]
    return len(each), sum(events for _, events, _ in each), sum(rings for _, _, rings in each)


def used_by(recording: Recording) -> tuple[int, int, int]:
    """1, and the events and bytes of rings of one recording."""
    events = sum(len(kind.events) for kind in recording.kinds.values())
    return 1, events, sum(ring.bytes for ring in recording.rings.values())


def locked(registry: Registry, uid: int) -> dict[str, int]:
    """Bytes of memory that the kernel locks for rings, by recording; those of other users together."""
    locked: dict[str, int] = {}
    for recording in registry:
        name = recording.name if recording.owner.uid == uid else "other users"
        rings = [ring.bytes for ring in recording.rings.values()]
        if recording.sideband is not None:
            rings += [RING_BYTES] * len(recording.sideband.cpus)
        locked[name] = locked.get(name, 0) + sum(rings) + mmap.PAGESIZE * len(rings)
    return locked


def usage(registry: Registry, uid: int, policy: Policy) -> Usage:
    """One user's line in the status."""
    quota = _of(uid, policy)
    return Usage(uid, *used(registry, uid), quota.recordings, quota.events, quota.rings)


def _of(uid: int, policy: Policy) -> Quota:
    if uid == 0:
        return Quota()
    return policy.each or default_for(uid, os.geteuid())


def check(
    registry: Registry, uid: int, policy: Policy, recordings: int, events: int, rings: int
) -> None:
    """Whether this much more is still within the user's quota and everybody's.

    Raises:
        BrokerError: EDQUOT naming the limit, what is used and what was asked for.
    """
    asked = (recordings, events, rings)
    for whose, quota, has in (
        (f"uid {uid}", _of(uid, policy), used(registry, uid)),
        ("all users together", policy.all, used(registry, None)),
    ):
        limits = (quota.recordings, quota.events, quota.rings)
        for what, limit, now, more in zip(_NAMES, limits, has, asked, strict=True):
            if limit is not None and more and now + more > limit:
                show = format_size if what == "bytes of rings" else str
                raise BrokerError(
                    errno.EDQUOT,
                    f"{whose} may have {show(limit)} {what}, has {show(now)}, and this needs "
                    f"{show(more)}",
                    hint=f"end a recording, or ask for less; {policy.path} has the quota",
                )


_NAMES = ("recordings", "events", "bytes of rings")
