"""Names of C++ and Rust functions as their programmers wrote them."""

from __future__ import annotations

import ctypes
import re
from functools import cache, lru_cache

#: What is longer stays as it is, and what refers back to more parts of itself: each reference may
#: double what comes out, and whoever wrote the file may have made it to keep us busy.
_LONGEST = 1024
_MOST_REFERENCES = 10
_REFERENCE = {"_Z": re.compile(r"[ST][0-9A-Z]*_"), "_R": re.compile(r"B[0-9a-zA-Z]*_")}
#: What Rust's older scheme, which looks like C++, puts behind a name.
_HASH = re.compile(r"::h[0-9a-f]{16}$")


def demangle(name: str) -> str:
    """As c++filt(1) does it, and rustc; any other name stays as it is."""
    reference = _REFERENCE.get(name[:2])
    if reference is None or len(name) > _LONGEST:
        return name
    if len(reference.findall(name)) > _MOST_REFERENCES:
        return name
    return _demangled(name)


@lru_cache(1 << 16)
def _demangled(name: str) -> str:
    return _rust(name) if name.startswith("_R") else _cxx(name)


def _cxx(name: str) -> str:
    function = _cxa_demangle()
    if function is None:
        return name
    status = ctypes.c_int()
    found = function(name.encode(), None, None, ctypes.byref(status))
    if not found:
        return name
    try:
        text = (ctypes.string_at(found)).decode(errors="replace")
    finally:
        _libc().free(found)
    return _HASH.sub("", text)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


@cache
def _cxa_demangle() -> ctypes._NamedFuncPointer | None:
    """abi::__cxa_demangle of the C++ library; None: this machine has none, and then hardly a program
    that needs it.
    """
    try:
        function = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_void_p
    function.argtypes = [
        ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int),
    ]  # fmt: skip
    return function


def _rust(name: str) -> str:
    from rust_demangler import demangle as of_rust

    try:
        found = str(of_rust(name))
    except Exception:  # of what is no such name it raises whatever comes up
        return name
    return found or name
