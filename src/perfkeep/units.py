"""Sizes and times as people type and read them: "8M", "250ms". Pure."""

from __future__ import annotations

from perfkeep.errors import UsageError

_SIZES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIMES = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "": 10**9, "m": 60 * 10**9,
          "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}  # fmt: skip


def _split(text: str) -> tuple[str, str]:
    text = text.strip()
    digits = len(text) - len(text.lstrip("0123456789."))
    return text[:digits], text[digits:].strip()


def parse_size(text: str) -> int:
    """Bytes of "8M": 8388608. K, M, G and T are powers of 1024; "KiB" and "KB" mean K.

    Raises:
        UsageError: not a size.
    """
    number, unit = _split(text)
    factor = _SIZES.get(unit.upper().removesuffix("IB").removesuffix("B") if unit else "")
    try:
        if factor is None or not number:
            raise ValueError
        return round(float(number) * factor) if "." in number else int(number) * factor
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a size", hint="write it like 512K, 8M or 1G") from None


def parse_duration(text: str | float) -> int:
    """Nanoseconds of "250ms": 250000000; a bare number is seconds.

    Raises:
        UsageError: not a duration, or a negative one.
    """
    # Python prints small floats as 1e-05, which people do not type.
    number, unit = _split(f"{text:.9f}" if isinstance(text, float) else str(text))
    factor = _TIMES.get(unit)
    try:
        if factor is None or not number:
            raise ValueError
        return round(float(number) * factor) if "." in number else int(number) * factor
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is not a time span", hint="write it like 250ms, 10s or 5m"
        ) from None


def format_size(count: int) -> str:
    """8388608 → "8M"; what is no whole unit gets one decimal."""
    value, unit = float(count), ""
    for unit in ("", "K", "M", "G", "T"):
        if round(value, 1) < 1024 or unit == "T":
            break
        value /= 1024
    return f"{int(value)}{unit}" if value == int(value) else f"{value:.1f}{unit}"


def format_duration(ns: int) -> str:
    """1500000000 → "1.5s"."""
    for unit, factor in (("d", 86400 * 10**9), ("h", 3600 * 10**9), ("m", 60 * 10**9), ("s", 10**9),
                         ("ms", 10**6), ("µs", 10**3)):  # fmt: skip
        if ns >= factor:
            return f"{ns / factor:.4g}{unit}"
    return f"{ns}ns"
