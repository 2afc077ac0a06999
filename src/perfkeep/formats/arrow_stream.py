"""Arrow arrays that are made when somebody asks for the next one, as a stream of Arrow's C interface.

Source: "The Arrow C stream interface" and "The Arrow PyCapsule Interface" of the Arrow format. The
consumer moves the struct to where it likes, may ask from any thread, and says when it has had enough.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Generator, Sequence
from typing import Any

from perfkeep.errors import PerfkeepError
from perfkeep.formats.arrow_array import ArrowArray, mover
from perfkeep.records.cells import Column

_NAME = b"arrow_array_stream"
_Function = ctypes.CFUNCTYPE
_api = ctypes.pythonapi
_pointer_of = _Function(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
# A capsule that is about to go must not be referred to.
_pointer_of_dying = _Function(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_new_capsule = _Function(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _api)
)


class _ArrowSchema(ctypes.Structure):
    _fields_ = (
        ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p),
        ("flags", ctypes.c_int64), ("n_children", ctypes.c_int64), ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p), ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )  # fmt: skip


class _ArrowArrayStream(ctypes.Structure):
    _fields_ = (
        ("get_schema", ctypes.c_void_p), ("get_next", ctypes.c_void_p),
        ("get_last_error", ctypes.c_void_p), ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )  # fmt: skip


class _State:
    """What the functions of one stream need."""

    def __init__(
        self, schema: Any, like: Sequence[Column], batches: Generator[Sequence[Column], None, None]
    ) -> None:
        self.schema, self.move, self.batches = schema, mover(schema, like), batches
        self.error = ctypes.create_string_buffer(b"")


#: By `private_data`: streams that nobody has released.
_live: dict[int, _State] = {}
_next_number = iter(range(1, 1 << 62)).__next__
#: Structs whose capsules live.
_structs: dict[int, _ArrowArrayStream] = {}


def _state(stream: int) -> _State:
    return _live[_ArrowArrayStream.from_address(stream).private_data]


def _failed(state: _State, error: BaseException) -> int:
    said = str(error) if isinstance(error, PerfkeepError) else f"{type(error).__name__}: {error}"
    state.error = ctypes.create_string_buffer(said.encode(errors="replace"))
    return errno.ENOMEM if isinstance(error, MemoryError) else errno.EIO


def _get_schema(stream: int, out: int) -> int:
    state = _state(stream)
    try:
        capsule = state.schema.__arrow_c_schema__()
        # Out of its capsule, which then has nothing to release.
        source = _ArrowSchema.from_address(_pointer_of(capsule, b"arrow_schema"))
        ctypes.memmove(out, ctypes.addressof(source), ctypes.sizeof(_ArrowSchema))
        source.release = None
    except BaseException as error:  # nothing may be raised into C
        return _failed(state, error)
    return 0


def _get_next(stream: int, out: int) -> int:
    state = _state(stream)
    try:
        columns = next(state.batches, None)
        if columns is None:
            ArrowArray.from_address(out).release = None  # this says that it was all
        else:
            state.move(columns, out)
    except BaseException as error:
        return _failed(state, error)
    return 0


def _get_last_error(stream: int) -> int | None:
    error = _state(stream).error
    return ctypes.addressof(error) if error.value else None


def _release(stream: int) -> None:
    struct = _ArrowArrayStream.from_address(stream)
    state = _live.pop(struct.private_data)
    struct.release = None
    state.batches.close()


def _forget(capsule: int) -> None:
    """Of a capsule that goes: nobody else can have its struct now."""
    address = _pointer_of_dying(capsule, _NAME)
    struct = _structs.pop(address)
    if struct.release:
        _release(address)


# What C calls, for as long as the process lives.
_GET_SCHEMA = _Function(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_get_schema)
_GET_NEXT = _Function(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_get_next)
_GET_LAST_ERROR = _Function(ctypes.c_void_p, ctypes.c_void_p)(_get_last_error)
_RELEASE = _Function(None, ctypes.c_void_p)(_release)
_FORGET = _Function(None, ctypes.c_void_p)(_forget)


def capsule(
    schema: Any, like: Sequence[Column], batches: Generator[Sequence[Column], None, None]
) -> object:
    """A stream for `__arrow_c_stream__`.

    Args:
        schema: has `__arrow_c_schema__`.
        like: columns of the forms that each batch has.
        batches: it is closed when the consumer wants no more.
    """
    number = _next_number()
    _live[number] = _State(schema, like, batches)
    struct = _ArrowArrayStream(
        *(
            ctypes.cast(one, ctypes.c_void_p)
            for one in (_GET_SCHEMA, _GET_NEXT, _GET_LAST_ERROR, _RELEASE)
        ),
        number,
    )
    address = ctypes.addressof(struct)
    _structs[address] = struct
    found: object = _new_capsule(address, _NAME, ctypes.cast(_FORGET, ctypes.c_void_p))
    return found
