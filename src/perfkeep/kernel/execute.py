"""execvpe(3) on bytes: arguments and environment reach a program as they reached this process.

Python's own functions take an environment as a mapping, which loses entries without "=" and all but
one of those with the same name.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import NoReturn

_libc = ctypes.CDLL(None, use_errno=True)


def own_environment() -> list[bytes]:
    """Entries that this process was started with, in their order."""
    return _strings("environ")


def own_arguments() -> list[bytes]:
    """Arguments that this process was started with, beginning with the interpreter's."""
    return _strings("cmdline")


def _strings(name: str) -> list[bytes]:
    with open(f"/proc/self/{name}", "rb") as file:
        return file.read().split(b"\0")[:-1]


def execvpe(arguments: Sequence[bytes], environment: Sequence[bytes]) -> NoReturn:
    """Become the program that the first argument names, looked up in this process's PATH; the
    shell runs a file that no kernel format fits.

    Raises:
        OSError: ENOENT no such program · EACCES, ENOEXEC it cannot be run · E2BIG.
    """
    _libc.execvpe(arguments[0], _vector(arguments), _vector(environment))
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def _vector(strings: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(strings) + 1))(*strings, None)
