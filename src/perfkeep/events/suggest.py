"""Close matches, and the sentence that names them. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from perfkeep.errors import SpecError


def suggest(part: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """The candidates that look like `part`, best first, at most three."""
    import difflib  # only a mistake needs it

    known = dict.fromkeys(candidates)
    # Case is what people get wrong most; difflib takes "llc-loads" and "LLC-loads" for strangers.
    folded = {name.lower(): name for name in reversed(list(known))}
    close = difflib.get_close_matches(part.lower(), folded, n=3, cutoff=0.6)
    return tuple(folded[name] for name in close)


def unknown(message: str, part: str, candidates: Iterable[str] = ()) -> SpecError:
    """The ENOENT for a name that is not there: the message, and what is close to it."""
    close = suggest(part, candidates)
    hint = f"did you mean {', '.join(close)}?" if close else ""
    return SpecError(message, part, close, errno.ENOENT, hint=hint)
