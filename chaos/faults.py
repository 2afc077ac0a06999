"""The faults, one function each: makes it happen once, and gives how long it took to be whole."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import perfkeep
from chaos.world import NAME, PATIENCE_S, Lost, World, again, until
from perfkeep.client.connection import disconnect
from perfkeep.client.recover import look_at_all, recover
from perfkeep.errors import PerfkeepError

Fault = Callable[[World], float]
Request = Callable[[], object]

OTHER = "other"


def _other() -> perfkeep.Recording:
    return perfkeep.Recording(OTHER)


def _start() -> None:
    perfkeep.start("new", ["cpu-clock", "page-faults"], ring="64K")
    perfkeep.Recording("new").claim()


def _unclaim() -> None:
    with perfkeep.open_event("cpu-clock", cpu=0) as event:
        event.unclaim()
        event.claim()


def _reopen() -> None:
    perfkeep.reopen(_other().info.id, 0).close()


def _add() -> None:
    _other().add(["context-switches"])
    _other().remove(["context-switches"])


#: What a client may be in the middle of, on a recording beside the one that is watched.
REQUESTS: dict[str, Request] = {
    "start and claim": _start,
    "unclaim and claim": _unclaim,
    "add and remove": _add,
    "reopen": _reopen,
    "disable": lambda: _other().disable(),
    "enable": lambda: _other().enable(),
    "chmod": lambda: _other().chmod(0o640),
    "expire": lambda: _other().expire("1h"),
    "stat": lambda: _other().stat(),
    "ls": perfkeep.recordings,
    "snapshot": lambda: perfkeep.Recording(NAME).snapshot().close(),
}


def in_a_child(request: Request) -> int:
    """Start a request in a process of its own; it ends with 0: done, 1: a clean failure."""
    pid = os.fork()
    if pid:
        return pid
    code = 2
    try:
        disconnect()
        request()
        code = 0
    except PerfkeepError:
        code = 1
    finally:
        os._exit(code)


def wait_for(pid: int, what: str) -> int:
    """The exit code of a child; negative: the signal that ended it.

    Raises:
        Lost: it hangs, or failed otherwise than in a clean way.
    """
    fd = os.pidfd_open(pid)
    try:
        if not select.select([fd], [], [], PATIENCE_S)[0]:
            os.kill(pid, signal.SIGKILL)
            raise Lost(f"{what} hangs")
    finally:
        os.close(fd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 2:
        raise Lost(f"{what} did not fail cleanly")
    return code


def _settled(world: World, began: float) -> float:
    world.pids()
    took = time.monotonic() - began
    _tidy()
    world.check()
    return took


def _tidy() -> None:
    """What a request that was cut short has left is whole, and is taken away."""
    for one in again(perfkeep.recordings):
        if one.name in (NAME, OTHER):
            continue
        with suppress(PerfkeepError):
            one.stat()
            one.claim()
    names = {one.name for one in again(perfkeep.recordings)}
    if names != {NAME, OTHER}:
        raise Lost(f"there are {names}")
    for event in again(lambda: _other().info).events[1:]:
        with suppress(PerfkeepError):
            _other().remove([event.id])


def _a_moment(longest_s: float) -> None:
    select.select([], [], [], random.uniform(0, longest_s))


def client_dies(world: World) -> float:
    """kill -9 of a client in the middle of a request."""
    name, request = random.choice(list(REQUESTS.items()))
    pid = in_a_child(request)
    _a_moment(0.03)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    wait_for(pid, name)
    return _settled(world, began)


def creator_dies(world: World) -> float:
    """kill -9 of the process that has just made a recording."""
    code = (
        "import os, perfkeep; perfkeep.start('made', ['cpu-clock'], ring='64K');"
        "os.write(1, b'!'); os.kill(os.getpid(), 9)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        made.stdout.read(1)
    began = time.monotonic()
    if again(lambda: perfkeep.Recording("made").info).state != "running":
        raise Lost("it died with its maker")
    return _settled(world, began)


def _supervisors(world: World) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(name) for name in os.listdir(f"{world.socket}.exec") if name.isdecimal()]
    return []


def supervisor_dies(world: World) -> float:
    """kill -9 of the supervisor of `perfkeep exec`."""
    code = "import os; os.write(1, b'!'); os.read(0, 1)"
    command = [sys.executable, "-m", "perfkeep", "exec", "--", sys.executable, "-S", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None and program.stdin is not None
        program.stdout.read(1)
        # The program may be there before its supervisor can be asked.
        found = until(lambda: _supervisors(world) or None, "a supervisor")
        began = time.monotonic()
        for pid in found:
            with suppress(ProcessLookupError):  # one that was killed before
                os.kill(pid, signal.SIGKILL)
        program.stdin.close()
        code_of = program.wait(PATIENCE_S)
    if not found or code_of:
        raise Lost(f"the program ended with {code_of}; supervisors: {found}")
    return _settled(world, began)


def broker_dies(world: World) -> float:
    """kill -9 of the broker while nobody asks."""
    began = time.monotonic()
    world.kill(world.pids()[0])
    return _settled(world, began)


def keeper_dies(world: World) -> float:
    """kill -9 of the keeper while nobody asks."""
    began = time.monotonic()
    world.kill(world.pids()[1])
    return _settled(world, began)


def _in_the_middle(world: World, victim: int) -> float:
    name, request = random.choice(list(REQUESTS.items()))
    pids = world.pids()
    pid = in_a_child(request)
    _a_moment(0.03)
    began = time.monotonic()
    world.kill(pids[victim])
    wait_for(pid, name)
    return _settled(world, began)


def broker_dies_in_a_request(world: World) -> float:
    """kill -9 of the broker at any moment of any request."""
    return _in_the_middle(world, 0)


def keeper_dies_in_a_request(world: World) -> float:
    """kill -9 of the keeper at any moment of any request."""
    return _in_the_middle(world, 1)


def either_dies_under_load(world: World) -> float:
    """kill -9 of either while three clients ask without a pause."""

    requests: list[Callable[[], object]] = [_other().stat, perfkeep.recordings, _reopen]

    def ask_on() -> None:
        until_s = time.monotonic() + 0.3
        while time.monotonic() < until_s:
            with suppress(PerfkeepError):
                random.choice(requests)()

    children = [in_a_child(ask_on) for _ in range(3)]
    _a_moment(0.1)
    began = time.monotonic()
    world.kill(random.choice(world.pids()))
    for pid in children:
        wait_for(pid, "a client under load")
    return _settled(world, began)


def upgrade_with_a_crash(world: World) -> float:
    """`perfkeep upgrade`, and kill -9 of one of the old two at any moment of it."""
    from perfkeep.client.upgrade import upgrade

    pids = world.pids()
    pid = in_a_child(upgrade)
    _a_moment(0.6)
    began = time.monotonic()
    world.kill(random.choice(pids))
    wait_for(pid, "upgrade")
    return _settled(world, began)


def both_die(world: World) -> float:
    """kill -9 of both at once: definitions come back, the gap is told, the past is on disk."""
    pids = world.pids()
    began, beats = time.monotonic(), world.heart.beats
    world.kill(*pids)
    disconnect()
    world.pids()
    took = time.monotonic() - began
    older = list(look_at_all(world.spill))[1]
    with recover(older, None) as snapshot:
        numbers = [one.number for one in world.beats_in(snapshot)]
    if not numbers or numbers != list(range(numbers[0], numbers[-1] + 1)):
        raise Lost("the copy on disk has holes")
    if numbers[0] > world.seen + 1 and world.seen:
        raise Lost(f"the copy on disk begins with {numbers[0]} only")
    lost_s = max(0, beats - numbers[-1]) * 0.0006
    if lost_s > 2.0:
        raise Lost(f"the copy on disk ends {lost_s:.1f} s before")
    world.begin_anew()
    world.check()
    return took


def cpu_goes_and_comes(world: World) -> float:
    """CPU 1 offline and online again, half of the times while a snapshot runs."""
    switch = Path("/sys/devices/system/cpu/cpu1/online")
    if not os.access(switch, os.W_OK):
        return 0.0
    child = in_a_child(REQUESTS["snapshot"]) if random.random() < 0.5 else 0
    switch.write_text("0")
    switch.write_text("1")
    began = time.monotonic()
    if child:
        wait_for(child, "a snapshot")

    def whole() -> bool | None:
        info = again(lambda: world.recording.info)
        cpus = info.events[0].cpus
        return True if not info.offline and len(cpus) == os.cpu_count() else None

    until(whole, "CPU 1 joins again")
    return _settled(world, began)


FAULTS: tuple[Fault, ...] = (
    creator_dies,
    client_dies,
    supervisor_dies,
    broker_dies,
    broker_dies_in_a_request,
    keeper_dies,
    keeper_dies_in_a_request,
    either_dies_under_load,
    upgrade_with_a_crash,
    cpu_goes_and_comes,
    both_die,
)
