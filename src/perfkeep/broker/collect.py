"""Which recordings are over, by their own time to live or by policy."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from perfkeep.broker.permission import Level, level
from perfkeep.broker.recordings import Recordings
from perfkeep.broker.registry import Recording
from perfkeep.broker.views import Views
from perfkeep.wire.socket import Peer


def over(recordings: Recordings, views: Views, peer: Peer) -> Iterator[tuple[Recording, str]]:
    """Of what the peer owns, each recording that is over, and why."""
    policy = recordings.policy
    for recording in list(recordings.registry):
        if level(peer, recording) < Level.OWN:
            continue
        uid = recording.owner.uid
        if expired(recording):
            yield recording, "its time to live is over"
        elif policy.end_ended and views.info(recording).state == "ended":
            yield recording, "the processes that it recorded have ended"
        elif policy.owner_gone == "no-account" and not _has_account(uid):
            yield recording, f"its owner, uid {uid}, has no account any more"
        elif policy.owner_gone == "no-process" and uid and not _has_process(uid):
            yield recording, f"its owner, uid {uid}, has no process any more"


def expired(recording: Recording) -> bool:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return recording.expires_ns is not None and recording.expires_ns <= now


def _has_account(uid: int) -> bool:
    import pwd

    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _has_process(uid: int) -> bool:
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == uid:
                return True
    return False
