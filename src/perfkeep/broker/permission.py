"""Who may do what with a recording. Pure.

    read      see it, its counts, snapshots of it: copies, never an fd
    control   be given its events, switch it on and off
    own       end it, change what it is and who may what

Unix style: the owner's, the group's or the others' bits of the mode count, and of those r is read
and w is control. Root and the owner own.
"""

from __future__ import annotations

import enum
import errno

from perfkeep.broker.policy import Policy
from perfkeep.broker.registry import Recording, Registry
from perfkeep.errors import BrokerError
from perfkeep.wire.messages import Access, Target
from perfkeep.wire.socket import Peer


class Level(enum.IntEnum):
    """What a peer may do with a recording; the higher includes the lower."""

    NOTHING = 0
    READ = 1
    CONTROL = 2
    OWN = 3


def level(peer: Peer, recording: Recording) -> Level:
    """The most that the peer may."""
    if peer.uid in (0, recording.owner.uid):
        return Level.OWN
    # As with files: who is of the group has the group's bits, be they fewer than the others'.
    bits = recording.mode >> 3 if recording.gid in peer.groups else recording.mode
    if bits & 0o2:
        return Level.CONTROL
    return Level.READ if bits & 0o4 else Level.NOTHING


def sees(peer: Peer, recording: Recording) -> bool:
    return level(peer, recording) >= Level.READ


def _allowing(peer: Peer, recording: Recording, needed: Level) -> str:
    """The command of its owner, or of root, after which the peer may, and as few others as possible."""
    if needed == Level.OWN:
        return ""
    bits = 0o6 if needed == Level.CONTROL else 0o4
    command = ""
    if recording.gid in peer.groups or not recording.mode & 0o070:
        mode = recording.mode | bits << 3
        if recording.gid not in peer.groups:  # no group may anything so far: let it be the peer's
            command = f"perfkeep chown :{peer.gid} {recording.name} && "
    else:
        mode = recording.mode | bits
    command += f"perfkeep chmod {mode:04o} {recording.name}"
    return f"have its owner or root run: {command}"


def check(peer: Peer, recording: Recording, needed: Level, verb: str) -> None:
    """Raises: BrokerError: EACCES naming owner and mode."""
    if level(peer, recording) < needed:
        raise BrokerError(
            errno.EACCES,
            f"uid {peer.uid} may not {verb} {recording.name!r}: it belongs to uid "
            f"{recording.owner.uid}, group {recording.gid}, mode {recording.mode:04o}",
            hint=_allowing(peer, recording, needed),
        )


def check_pids(target: Target, pid_namespace: int) -> None:
    """Raises: BrokerError: EINVAL: its pids are numbers of another PID namespace than this one."""
    if target.pids is None or target.pid_namespace in (None, pid_namespace):
        return
    raise BrokerError(
        errno.EINVAL,
        f"{target} is a number of another PID namespace than the broker of this instance is in: "
        "its events could not be opened again, and its names not be found",
        hint="start it from the broker's PID namespace, by the process's pid there; "
        "NSpid in /proc/PID/status has all pids of a process",
    )


def find(registry: Registry, peer: Peer, name: str, needed: Level, verb: str) -> Recording:
    """The recording of that name, if the peer may do this with it.

    Raises:
        BrokerError: ENOENT, with names that are close, of those that the peer may see · EACCES.
    """
    recording = registry.named(name)
    if recording is None:
        import difflib

        visible = [one.name for one in registry if sees(peer, one)]
        close = difflib.get_close_matches(name, visible, 3)
        hint = f"did you mean {', '.join(close)}?" if close else "perfkeep ls shows what there is"
        raise BrokerError(errno.ENOENT, f"there is no recording named {name!r}", hint=hint)
    check(peer, recording, needed, verb)
    return recording


def check_start(peer: Peer, broker_uid: int, policy: Policy) -> None:
    """Raises: BrokerError: EACCES: not everyone may record in somebody else's instance."""
    if peer.uid not in (0, broker_uid) and not policy.may_start(peer.uid, peer.groups):
        raise BrokerError(
            errno.EACCES,
            f"uid {peer.uid} may not start recordings in the instance of uid {broker_uid}",
            hint=f"use an instance of your own, without --system and PERFKEEP_SOCKET, or have root add you to `start` in {policy.path}",
        )


def check_access(peer: Peer, owner_uid: int, wanted: Access, policy: Policy) -> None:
    """Whether the peer, who owns the recording, may give it away or share it like this.

    What the kernel would refuse somebody alone, nobody but an administrator may let them have.

    Raises:
        BrokerError: EPERM.
    """
    if peer.uid == 0:
        return
    if wanted.uid not in (None, owner_uid):
        raise BrokerError(errno.EPERM, "only root may give a recording to somebody else")
    if wanted.gid is not None and wanted.gid not in peer.groups:
        raise BrokerError(errno.EPERM, f"uid {peer.uid} is not of group {wanted.gid}")
    if wanted.mode is not None and wanted.mode & 0o066 and not policy.share:
        raise BrokerError(
            errno.EPERM,
            "others would see what the kernel may refuse them",
            hint=f"have root write `share = true` into {policy.path}",
        )
