"""The letters after an event: whom it leaves out, how exact its addresses are. As perf has them."""

from __future__ import annotations

from dataclasses import replace

from perfkeep.abi.perf_event import Attr, Flag
from perfkeep.errors import SpecError

EXPECTED = "u k h I G H p pp ppp P D e"

_ALL_LEVELS = Flag.EXCLUDE_USER | Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV
_LEVELS = {"u": Flag.EXCLUDE_USER, "k": Flag.EXCLUDE_KERNEL, "h": Flag.EXCLUDE_HV}
_BOTH_SIDES = Flag.EXCLUDE_HOST | Flag.EXCLUDE_GUEST
_SIDES = {"G": Flag.EXCLUDE_GUEST, "H": Flag.EXCLUDE_HOST}
_PLAIN = {"I": Flag.EXCLUDE_IDLE, "D": Flag.PINNED, "e": Flag.EXCLUSIVE}
_LEADER_ONLY = "De"
KNOWN = frozenset({*_LEVELS, *_SIDES, *_PLAIN, "p", "P"})


def check(letters: str, event: str) -> None:
    """Whether these are modifiers, each at most once (p: three times).

    Raises:
        SpecError: names the letter.
    """
    for letter in letters:
        if letter not in KNOWN:
            raise SpecError(
                f"{letter!r} is no modifier of {event!r}; expected some of {EXPECTED}", letter
            )
        if letters.count(letter) > (3 if letter == "p" else 1):
            raise SpecError(f"the modifier {letter!r} stands too often in {event!r}", letter)


def join(own: str, of_group: str, leads: bool, event: str) -> str:
    """An event's own modifiers and those of its group, of which D and e are the leader's alone.

    Raises:
        SpecError: the letters, or D or e on an event that leads no group.
    """
    check(own, event)
    check(of_group, event)
    if not leads:
        misplaced = [letter for letter in own if letter in _LEADER_ONLY]
        if misplaced:
            raise SpecError(
                f"the modifier {misplaced[0]!r} of {event!r} is for the leader of a group, the first event in it",
                misplaced[0],
                hint="write it behind the first event, or behind the group",
            )
        of_group = "".join(letter for letter in of_group if letter not in _LEADER_ONLY)
    letters = own + "".join(c for c in of_group if c == "p" or c not in own)
    if letters.count("p") > 3:
        raise SpecError(f"{event!r} and its group have more than three p in all", "p")
    return letters


def apply(attr: Attr, letters: str) -> Attr:
    """The attr with what the letters say.

    `u`, `k`, `h` leave out the other levels, `G` and `H` the other side; P asks the kernel for
    the greatest precise_ip that it takes for this event.
    """
    flags = attr.flags
    for table, everything in ((_LEVELS, _ALL_LEVELS), (_SIDES, _BOTH_SIDES)):
        wanted = [table[letter] for letter in letters if letter in table]
        if wanted:
            flags |= everything
        for flag in wanted:
            flags &= ~flag
    for letter in letters:
        flags |= _PLAIN.get(letter, Flag(0))
    attr = replace(attr, flags=flags, precise_ip=letters.count("p"))
    return replace(attr, precise_ip=_greatest_precise(attr)) if "P" in letters else attr


def letters(attr: Attr) -> str:
    """The way back: what `apply` would need to make this attr."""
    found = ""
    for table, everything in ((_LEVELS, _ALL_LEVELS), (_SIDES, _BOTH_SIDES)):
        left_out = attr.flags & everything
        if left_out and left_out != everything:
            found += "".join(letter for letter, flag in table.items() if not attr.flags & flag)
    found += "".join(letter for letter, flag in _PLAIN.items() if attr.flags & flag)
    return found + "p" * attr.precise_ip


def _greatest_precise(attr: Attr) -> int:
    """What `perf record` does as well: try from the top. 0 where nothing precise can be had."""
    from perfkeep.kernel.syscalls import perf_event_open  # it loads ctypes

    # Of this thread in user space: that needs no rights.
    trial = replace(
        attr.with_flags(
            Flag.DISABLED | Flag.EXCLUDE_KERNEL | Flag.EXCLUDE_HV,
            off=Flag.EXCLUDE_USER | Flag.PINNED | Flag.EXCLUSIVE,
        ),
        sample_period=1 << 20,
    )
    for precise in (3, 2, 1):
        try:
            perf_event_open(replace(trial, precise_ip=precise), 0, -1).close()
        except OSError:
            continue
        return precise
    return 0
