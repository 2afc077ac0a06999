"""`perfkeep status`: the broker, the keeper, and where they are."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import cast

import msgspec

from perfkeep.cli.common import missed, print_json, user_name
from perfkeep.cli.table import plain, render
from perfkeep.client.connection import call
from perfkeep.client.recording import infos
from perfkeep.units import format_size
from perfkeep.wire import messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs: docs/json.md")


def _instance(socket: str) -> str:
    """What people call it."""
    if socket == "/run/perfkeep/perfkeep.sock":
        return "system"
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    return "user" if socket == f"{runtime}/perfkeep/perfkeep.sock" else socket


def _numbers(one: messages.ProcessStatus) -> dict[str, int]:
    return {"pid": one.pid, "rss_bytes": one.rss_bytes, "cpu_ms": one.cpu_ms}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


_USERS = ["USER", "RECORDINGS", "EVENTS", "RINGS"]


def _user(one: messages.Usage) -> list[str]:
    def of(has: int, most: int | None, form: Callable[[int], str] = str) -> str:
        return form(has) if most is None else f"{form(has)} of {form(most)}"

    return [
        user_name(one.uid),
        of(one.recordings, one.most_recordings),
        of(one.events, one.most_events),
        of(one.ring_bytes, one.most_ring_bytes, format_size),
    ]


def run(options: argparse.Namespace) -> int:
    got = cast(messages.Status, call("GetStatus", messages.Nothing())[0])
    incomplete = [info.name for info in infos() if missed(info)]
    if options.json:
        print_json(
            {
                "instance": _instance(got.socket),
                "socket": got.socket,
                "log": got.log,
                "version": got.version,
                "recordings": got.recordings,
                "kinds": got.kinds,
                "events": got.events,
                "ring_bytes": got.ring_bytes,
                "broker": _numbers(got.broker),
                "keeper": _numbers(got.keeper),
                "state": got.state,
                "state_bytes": got.state_bytes,
                "spill_bytes": got.spill_bytes,
                "log_bytes": got.log_bytes,
                "users": [msgspec.structs.asdict(one) for one in got.users],
                "sandbox": got.sandbox,
                "problems": got.problems,
                "missed": incomplete,
            }
        )
        return 0
    print(f"instance   {_instance(got.socket)} (perfkeep {got.version})")
    print(f"socket     {got.socket}")
    print(f"log        {got.log}")
    kinds = f"{got.kinds} kind{'' if got.kinds == 1 else 's'} of event"
    events = f"{kinds} on their CPUs: {_count(got.events, 'event')}" if got.kinds else "no events"
    rings = f"{format_size(got.ring_bytes)} of rings"
    print(f"holds      {_count(got.recordings, 'recording')}; {events}; {rings}")
    for name, one in (("broker", got.broker), ("keeper", got.keeper)):
        rss = format_size(one.rss_bytes)
        print(f"{name}     pid {one.pid}, {rss} resident, {one.cpu_ms} ms of CPU time")
    print(f"sandbox    {got.sandbox}")
    disk = f"{format_size(got.state_bytes)} of definitions, {format_size(got.log_bytes)} of logs"
    print(f"on disk    {disk}, {format_size(got.spill_bytes)} of spilled rings")
    print(f"state      {got.state}")
    if got.users:
        print(render(_USERS, [_user(one) for one in got.users], right=(1, 2, 3)))
    for problem in got.problems:
        print(f"problem    {plain(problem)}")
    for name in incomplete:
        print(f"missed     something is or was missing from {name}: perfkeep show {name}")
    return 0
