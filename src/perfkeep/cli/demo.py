"""`perfkeep demo`: the main job on this machine's real events, one real command after another."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

from perfkeep.cli.common import raise_fd_limit, say_error
from perfkeep.cli.table import bold

_EVENTS = ["-e", "sched:sched_switch", "-e", "cpu-clock/freq=999/"]

# Something worth looking at: one process computes, one sleeps and wakes.
_WORK = (
    "import hashlib\nwhile True: hashlib.sha256(bytes(1 << 16)).digest()",
    "import time\nwhile True: time.sleep(0.001)",
)
_WORK_S = 1.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Ends what it started, also when it is interrupted."


def _perfkeep(*words: str, quiet: bool = False) -> int:
    """A process of its own for each command, as a user's shell would start it."""
    sys.stdout.flush()
    output = subprocess.DEVNULL if quiet else None
    command = [sys.executable, "-m", "perfkeep", *words]
    return subprocess.run(command, stdout=output, stderr=output).returncode


def _step(*words: str) -> None:
    """Print a command, run it, and stop when it fails."""
    print(bold("$ perfkeep " + shlex.join(words)), flush=True)
    if _perfkeep(*words):
        raise SystemExit(1)
    print()


def _work(stack: ExitStack) -> None:
    """Processes that know nothing of all this; they end with the stack."""
    print(bold("# some work begins: one process computes, another sleeps and wakes\n"))
    for code in _WORK:
        command = [sys.executable, "-c", code]
        # Interrupted together with the demo, it need not say so.
        process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        stack.callback(process.kill)
    time.sleep(_WORK_S)


def _reopen(name: str) -> None:
    """The event by its id, from a process that never saw it."""
    from perfkeep.client.recording import Recording

    event = Recording(name).info.events[-1]
    code = f"import perfkeep; print(perfkeep.reopen({event.id}, cpu={event.cpus[0]}).read())"
    print(bold(f"$ python3 -c {shlex.quote(code)}"), flush=True)
    subprocess.run([sys.executable, "-c", code], check=True)
    print()


def _count_with_perf(name: str) -> None:
    """The running event once more, by its name, from a program that nobody changed."""
    from perfkeep.cli.doctor import exec_works

    if shutil.which("perf") is not None and exec_works():
        event = f"persistent/{name}.sched_sched_switch/"
        _step("exec", "--", "perf", "stat", "-e", event, "-a", "true")


def _free_name() -> str:
    from perfkeep.client.recording import infos

    taken = {info.name for info in infos()}
    return next(n for n in ("demo", *(f"demo-{i}" for i in range(2, 99))) if n not in taken)


def _explain_refusal() -> int:
    """Why nothing can be recorded, and the command that would allow it."""
    from perfkeep.cli.doctor import WHOLE_MACHINE, examine

    print("this machine does not let you record what the demo needs:")
    for one in examine(WHOLE_MACHINE):
        if one.verdict != "ok":
            print(f"  {one.what}: {one.found}")
            for cure in filter(None, (one.cure, *one.others)):
                print(f"    {'allow it with' if cure == one.cure else 'or'}: {cure}")
    return 1


def _may_record() -> bool:
    from perfkeep.client import opening

    raise_fd_limit()
    try:
        wanted = opening.wanted([text for text in _EVENTS if text != "-e"])
        opening.open_events(wanted, opening.scope()).close()
    except OSError as error:
        say_error(error)
        return False
    return True


def run(options: argparse.Namespace) -> int:
    if not _may_record():
        return _explain_refusal()
    name = _free_name()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="perfkeep-demo-"))
        path = os.path.join(directory, f"{name}.data")
        cleanup = stack.enter_context(ExitStack())
        cleanup.callback(_perfkeep, "claim", name, quiet=True)
        try:
            _step("start", name, *_EVENTS, "-g")
        except SystemExit:
            cleanup.pop_all()  # there is none; one that has the name meanwhile is someone else's
            raise
        print(bold("# the process that started it has gone; the recording has not\n"))
        _work(stack)
        _step("ls")
        _step("stat", name)
        _reopen(name)
        _count_with_perf(name)
        _step("snapshot", name, "--last", "1s", "-o", path)
        _step("report", path, "-n", "8")
        _show_perf(path)
        _step("claim", name)
        cleanup.pop_all()
        _step("ls")
    return 0


def _show_perf(path: str) -> None:
    """The same file, in the tool that everybody knows."""
    if shutil.which("perf") is None:
        return
    print(bold(f"$ perf script -i {path} | head -4"), flush=True)
    perf = subprocess.run(["perf", "script", "-i", path], capture_output=True, text=True)
    print("\n".join(perf.stdout.splitlines()[:4]) + "\n")
