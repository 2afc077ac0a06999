"""`python -I -S …/keeper/__main__.py SOCKET --lock N --link N -- BROKER…`: one keeper.

Started by a broker, never by hand. Runs by path, without site-packages: it needs none.
"""

import os
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from perfkeep.keeper.service import run


def main(arguments: list[str]) -> None:
    options, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    lock = int(options[options.index("--lock") + 1])
    link = socket.socket(fileno=int(options[options.index("--link") + 1]))
    for fd in (lock, link.fileno()):
        os.set_inheritable(fd, False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with open("/proc/self/comm", "w") as comm:
        comm.write("perfkeep-keeper")
    run(link, lock, command)


if sys.argv[1:] != ["--try"]:  # that it can be loaded is all that an upgrade asks first
    main(sys.argv[1:])
