"""The supervisor: answers the calls that the filter hands to it, until the last program is gone.

It runs as the user who started the program, with no privilege that the program has not. The threads
that receive calls answer the ordinary ones; another thread asks the broker about the rest, so that a
slow broker delays no ordinary call.
"""

from __future__ import annotations

import errno
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from perfkeep.abi.seccomp import MACHINES
from perfkeep.client import connection
from perfkeep.errors import BrokerError, KernelRefused, PerfkeepError
from perfkeep.interposer import ioctls, opening
from perfkeep.interposer.calls import (
    GO_ON,
    Answer,
    Caller,
    GoOn,
    NewFd,
    Refusal,
    Value,
    ioctl_call,
    open_call,
)
from perfkeep.interposer.table import Table
from perfkeep.kernel import process, seccomp
from perfkeep.kernel.fd import OwnedFd
from perfkeep.kernel.seccomp import Notification
from perfkeep.wire import instance, supervisors
from perfkeep.wire.instance import Instance
from perfkeep.wire.supervisors import Known

Handler = Callable[[], Answer]
_MOST_EXPLAINED = 256
#: Threads that receive calls.
_RECEIVERS = 2


def say(text: str) -> None:
    """One line in the log."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    print(f"{stamp} perfkeep-exec[{os.getpid()}]: {text}", flush=True)


def _write_line(terminal: OwnedFd, reason: str) -> None:
    """In a thread: a terminal that is stopped (^S) must hold up no call."""
    with terminal, suppress(OSError):
        os.write(terminal.fileno(), f"perfkeep exec: {reason}\r\n".encode())


class Supervisor:
    """Answers for one program and all that it starts.

    Args:
        listener: of the filter that the program is under.
        where: the instance whose events the program uses.
    """

    def __init__(self, listener: OwnedFd, where: Instance) -> None:
        self.listener = listener
        self.where = where
        self.rights = process.rights("self", process.status("self"))
        self.table = Table()
        #: (thread, line on its terminal).
        self._explained: set[tuple[int, str]] = set()
        self._opens: dict[int, int] = {
            n.arch: n.perf_event_open for n in MACHINES[os.uname().machine]
        }
        self._questions: queue.SimpleQueue[tuple[Notification, Handler]] = queue.SimpleQueue()

    def run(self) -> None:
        """Until every program under the filter has exited."""
        seccomp.wake_synchronously(self.listener.fileno())
        try:
            with connection.Shared():
                pass  # with a client the broker does not end, and nobody starts one under us
        except OSError as error:
            say(str(error))
        threading.Thread(target=self._ask, daemon=True).start()
        try:
            asked = supervisors.listen(self.where)
        except OSError as error:
            say(f"the events opened here cannot be looked up by name when adopted: {error}")
            self._answer_all()
            return
        threading.Thread(target=self._tell, args=(asked,), daemon=True).start()
        try:
            self._answer_all()
        finally:
            supervisors.close(asked)

    def _answer_all(self) -> None:
        """Two threads receive calls in turn: while one answers, the other waits in the kernel for
        the next. Until a call has been received, a signal with a handler ends it (EINTR)."""
        for _ in range(_RECEIVERS):
            threading.Thread(target=self._receive_all, daemon=True).start()
        self._end().poll()

    def _end(self) -> select.poll:
        """Reports that every program under the filter has exited; for one thread."""
        poll = select.poll()
        poll.register(self.listener.fileno(), 0)  # POLLHUP is reported nevertheless
        return poll

    def _receive_all(self) -> None:
        process.prefer_this_thread()
        end = self._end()
        while True:
            try:
                call = seccomp.receive(self.listener.fileno())
            except OSError as error:
                say(f"calls cannot be received: {error}")
                os._exit(1)  # calls then give ENOSYS instead of waiting for ever
            if call is not None:
                self._next(call)
            elif end.poll(0):
                return  # or this would go round and round, before the thread that ends it all

    def _next(self, call: Notification) -> None:
        answer: Answer | Handler = GO_ON
        try:
            answer = self._plan(Caller(call.pid, partial(self._waits, call)), call)
        except OSError:
            pass  # what cannot be read the kernel cannot read either, and says so
        except Exception as error:
            say(f"a call was left to the kernel: {error!r}")
        if isinstance(answer, Answer):
            self._send(call, answer)
        else:
            self._questions.put((call, answer))

    def _plan(self, caller: Caller, call: Notification) -> Answer | Handler:
        """The answer, or how the broker is asked for it."""
        if not call.pid:
            return GO_ON  # in a pid namespace beside ours
        if call.nr == self._opens.get(call.arch):
            opened = open_call(caller, call)
            if opening.is_ours(opened):
                return partial(opening.persistent, opened, self.table, self.rights)
            return opening.in_place(opened, self.table, self.rights)
        control = ioctl_call(caller, call)
        if ioctls.concerns_us(control, self.table) and not self._is_daemon(caller):
            return partial(ioctls.persistent, control, self.table, self.rights)
        return GO_ON

    def _is_daemon(self, caller: Caller) -> bool:
        """Whether it is the broker or the keeper, started by a program under us. They must not
        wait for an answer that they have to give."""
        return caller.process in instance.daemons(self.where)

    def _waits(self, call: Notification) -> bool:
        return seccomp.valid(self.listener.fileno(), call.id)

    def _ask(self) -> None:
        """The thread that asks the broker."""
        while True:
            call, handler = self._questions.get()
            answer: Answer
            try:
                answer = handler()
            except (BrokerError, KernelRefused) as error:
                answer = Refusal(error.errno or errno.EIO)
            except PerfkeepError as error:
                # No broker, and none can be started.
                say(str(error))
                answer = Refusal(errno.EIO)
            except OSError as error:
                answer = Refusal(error.errno or errno.EIO)
            except Exception as error:
                say(f"a call failed: {error!r}")
                answer = Refusal(errno.EIO)
            try:
                self._send(call, answer)
            except Exception as error:  # nobody else asks the broker
                say(f"an answer could not be given: {error!r}")

    def _tell(self, asked: socket.socket) -> None:
        """The thread for `perfkeep adopt`, which asks what we opened."""
        while True:
            try:
                supervisors.serve(asked, self._known)
            except (OSError, msgspec.MsgspecError) as error:
                if asked.fileno() < 0:
                    return
                say(f"somebody who asked was cut off: {error}")
                time.sleep(0.1)  # it may be us who cannot, and at once again

    def _known(self, kernel_id: int) -> Known | None:
        opened = self.table.opened.get(kernel_id)
        return opened and Known(kernel_id, opened.attr, opened.cpu, opened.path)

    def _send(self, call: Notification, answer: Answer) -> None:
        listener = self.listener.fileno()
        if isinstance(answer, GoOn):
            seccomp.go_on(listener, call.id)
        elif isinstance(answer, Value):
            seccomp.answer(listener, call.id, answer.value)
        elif isinstance(answer, Refusal):
            self._explain(call.pid, answer.reason)
            seccomp.refuse(listener, call.id, answer.errno)
        else:
            self._give(call, answer)

    def _explain(self, thread: int, text: str) -> None:
        """One line on the terminal, if that is where the program's errors go."""
        if not text or (thread, text) in self._explained:
            return  # once, not once for each CPU
        if len(self._explained) >= _MOST_EXPLAINED:
            self._explained.clear()
        self._explained.add((thread, text))
        try:
            errors = process.take_fd(thread, 2)
        except OSError:
            return
        if os.isatty(errors.fileno()):
            threading.Thread(target=_write_line, args=(errors, text), daemon=True).start()

    def _give(self, call: Notification, new: NewFd) -> None:
        with new.fd:
            self._explain(call.pid, new.remark)
            try:
                number = seccomp.inject(
                    self.listener.fileno(), call.id, new.fd.fileno(), new.cloexec
                )
            except OSError as error:
                # Killed meanwhile, or it may open no more files.
                try:
                    new.undo()
                except OSError as another:
                    say(f"an event that nobody took may have stayed: {another}")
                seccomp.refuse(self.listener.fileno(), call.id, error.errno or errno.EMFILE)
            else:
                new.arrived(number)
