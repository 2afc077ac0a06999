"""`python -I …/broker/__main__.py SOCKET [--ready N | --foreground 1 | --lock N --link N]`: one broker.

Started by a client that found none (--ready: a pipe to say so on), as a service (--foreground), or
by a keeper whose broker died (--lock, --link). Never by hand.
"""

import os
import signal
import socket
import sys

# First, for a copy that is not installed; an isolated Python looks only at site-packages.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from perfkeep.broker.daemon import Daemon, raise_fd_limit
from perfkeep.broker.log import say
from perfkeep.kernel.fd import OwnedFd
from perfkeep.wire import instance


def detach(keep: list[int]) -> None:
    """A process of its own: no terminal, no parent that waits for it, no fds by accident."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (int(name) for name in os.listdir("/proc/self/fd")):
        if number > 2 and number not in keep:
            try:
                os.close(number)
            except OSError:
                pass  # the fd of the listing itself


def main() -> None:
    # No argparse: it would stay in memory for as long as this process lives.
    path, *rest = sys.argv[1:]
    numbers = {name: int(value) for name, value in zip(rest[::2], rest[1::2], strict=True)}
    stays = bool(numbers.pop("--foreground", 0))
    inherited = list(numbers.values())
    if "--link" not in numbers and not stays:
        detach(inherited)
    for number in inherited:
        os.set_inheritable(number, False)
    os.chdir("/")
    os.umask(0o077)
    # Ctrl-C in the foreground: from when there is a loop that can end in good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Children (keepers) are reaped by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with open("/proc/self/comm", "w") as comm:
        comm.write("perfkeep-broker")
    raise_fd_limit()
    ready = OwnedFd(numbers["--ready"]) if "--ready" in numbers else None
    where = instance.Instance(path)
    if "--link" in numbers:
        lock, link = OwnedFd(numbers["--lock"]), socket.socket(fileno=numbers["--link"])
    else:
        instance.prepare_directory(where)
        taken = instance.take_lock(where)
        if taken is None:
            if stays:
                sys.exit(f"perfkeep: somebody serves {path} already; see {where.lock}")
            return  # someone else serves; the client that started us will find them
        lock, link = taken, None
    try:
        Daemon(where, lock, link, stays).run(ready)
    except Exception as error:
        say(f"broken: {error!r}")
        if ready is not None and not ready.closed:
            os.write(ready.fileno(), f"the broker cannot start: {error}".encode())
        raise


if sys.argv[1:] != ["--try"]:  # that it can be loaded is all that an upgrade asks first
    main()
