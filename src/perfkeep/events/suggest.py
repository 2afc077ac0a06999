"""Close matches, and the sentence that names them. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from perfkeep.errors import SpecError

#: A candidate whose ratio is below the best one's by more is noise beside it.
_WORSE = 0.12


def suggest(part: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """The candidates that look like `part`, best first, at most three, each about as close as the best."""
    import difflib  # only a mistake needs it

    known = dict.fromkeys(candidates)
    # Case is what people get wrong most; difflib takes "llc-loads" and "LLC-loads" for strangers.
    folded = {name.lower(): name for name in reversed(list(known))}
    close = difflib.get_close_matches(part.lower(), folded, n=3, cutoff=0.6)
    matcher = difflib.SequenceMatcher(b=part.lower())
    ratios = {}
    for name in close:
        matcher.set_seq1(name)
        ratios[name] = matcher.ratio()
    least = max(ratios.values(), default=0.0) - _WORSE
    return tuple(folded[name] for name in close if ratios[name] >= least)


def unknown(
    message: str, part: str, candidates: Iterable[str] = (), otherwise: str = ""
) -> SpecError:
    """The ENOENT for a name that is not there: the message, and what is close to it.

    Args:
        otherwise: the hint where nothing is close.
    """
    close = suggest(part, candidates)
    hint = f"did you mean {', '.join(close)}?" if close else otherwise
    return SpecError(message, part, close, errno.ENOENT, hint=hint)
