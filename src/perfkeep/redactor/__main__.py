"""`python -I …/redactor/__main__.py --link N`: redacts copies until the other end is closed.

Started by a broker, never by hand. Each request is JSON, and the copy's memfd; each answer the
redacted copy's memfd.
"""

import fcntl
import mmap
import os
import resource
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import msgspec

from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.sysctl import most_frames
from perfkeep.redactor.redact import Source, redact
from perfkeep.wire.socket import Channel

_NOBODY = 65534
#: Address space of a redactor and of what it decodes at a time.
_BASE = 256 << 20
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Request(msgspec.Struct):
    """One copy: see redact."""

    backward: bool
    overwritten: int
    unread: int | None
    seconds: int  # that whoever asks waits
    sources: list[Source]  # as arrays; the attr in base64


def give_up_rights() -> None:
    """Whatever a ring holds, it shall not get far."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    # One that finds no end shall end.
    resource.setrlimit(resource.RLIMIT_CPU, (600, 600))


def limit(size: int) -> None:
    """For a copy of so many bytes: it is mapped, read, and written once; the greatest of all sizes
    counts.
    """
    for what, most in ((resource.RLIMIT_FSIZE, size), (resource.RLIMIT_AS, _BASE + 4 * size)):
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def answer(request: Request, copy: OwnedFd) -> OwnedFd:
    size = os.fstat(copy.fileno()).st_size
    limit(size)
    data = bytearray()
    if size:
        with mmap.mmap(copy.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ) as mapping:
            data += mapping
    blank = redact(
        data, request.backward, request.sources, request.overwritten, most_frames(), request.unread
    )
    if blank:
        print(f"perfkeep-redactor: {blank} of {size} bytes are no records, and blank", flush=True)
    made = OwnedFd(os.memfd_create("perfkeep-redacted", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(made.fileno(), rest) :]
    fcntl.fcntl(made.fileno(), fcntl.F_ADD_SEALS, _SEALS)
    return made


def main() -> None:
    link = socket.socket(fileno=int(sys.argv[sys.argv.index("--link") + 1]))
    link.set_inheritable(False)
    give_up_rights()
    channel = Channel(link)
    while True:
        text = channel.splitter.next()
        if text is None:
            if not channel.receive():
                return
            continue
        request = msgspec.json.decode(text, type=Request)
        (copy,) = channel.take_fds(1)
        # The broker, whom its sandbox lets send no signals, could not end us.
        signal.alarm(request.seconds)
        with copy, answer(request, copy) as made:
            channel.send(b"\0", [made.fileno()])
        signal.alarm(0)


if sys.argv[1:] != ["--try"]:
    main()
