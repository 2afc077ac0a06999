"""`python -I …/opener/__main__.py SOCKET --link N [--uid N --gid N]`: opens what is missing.

Started by a broker, never by hand. N is a connection to it; with --uid and --gid the process
becomes that user before it looks at anything.
"""

import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from perfkeep.client.connection import Connection
from perfkeep.client.opening import cgroup_time
from perfkeep.client.reopening import open_again, spill_again
from perfkeep.client.sideband import add_again
from perfkeep.wire import messages
from perfkeep.wire.instance import Instance


def become(uid: int, gid: int) -> None:
    """Have the rights of this user, and no others."""
    import pwd

    try:
        groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        groups = [gid]  # a user without an account
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def main() -> None:
    path, *rest = sys.argv[1:]
    numbers = {name: int(value) for name, value in zip(rest[::2], rest[1::2], strict=True)}
    link = socket.socket(fileno=numbers["--link"])
    link.set_inheritable(False)
    if "--uid" in numbers:
        # What uprobes need, while it can be read: Python may lie where its owner only gets.
        import elftools.elf.elffile  # noqa: F401

        become(numbers["--uid"], numbers["--gid"])

    with Connection(Instance(path), link) as broker:
        missing, _ = broker.call("GetMissing", messages.Nothing(), messages.Missing)
        found = open_again(missing)
        try:
            spills = spill_again(missing, found)
            broker.stage(found.fds)
            problem = "; ".join(dict.fromkeys(found.problems))[:4096]
            request = messages.Rejoin(missing.name, found.slots, problem, spills)
            with cgroup_time(missing.target):
                broker.call("Rejoin", request, messages.Nothing)
        finally:
            found.close()
        add_again(broker, missing)


if sys.argv[1:] != ["--try"]:  # that it can be loaded is all that an upgrade asks first
    main()
