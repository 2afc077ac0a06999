"""`python -m chaos [--for TIME] [FAULT…]`: make faults happen, and print what was lost. Needs root.

`python -m chaos soak --for 1h`: no faults, but churn, and what memory and fds do meanwhile.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass, field

import perfkeep
from chaos.faults import FAULTS, OTHER, Fault
from chaos.world import Lost, World, world
from perfkeep.cli.table import render
from perfkeep.units import parse_duration


@dataclass
class Score:
    """How often a fault was made, what was seen, and what was lost."""

    times: int = 0
    samples: int = 0
    took_s: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def play(one: World, fault: Fault, score: Score) -> None:
    """One round."""
    before = one.checked
    score.times += 1
    try:
        score.took_s.append(fault(one))
    except Lost as error:
        score.lost.append(str(error))
    score.samples += one.checked - before


def run(seconds: float, faults: tuple[Fault, ...] = FAULTS) -> dict[str, Score]:
    """Every fault in turn, then at random until the time is over; stops at the first loss."""
    scores = {fault.__name__: Score() for fault in faults}
    end, turn = time.monotonic() + seconds, 0
    with world() as one:
        perfkeep.start(OTHER, ["cpu-clock"], ring="64K")
        while turn < len(faults) or time.monotonic() < end:
            fault = faults[turn] if turn < len(faults) else random.choice(faults)
            play(one, fault, scores[fault.__name__])
            turn += 1
            if sys.stderr.isatty():
                print(f"\r{turn} faults", end="", file=sys.stderr, flush=True)
            if scores[fault.__name__].lost:
                break
    return scores


def table(scores: dict[str, Score]) -> str:
    """For people: a line a fault."""
    rows = []
    for name, score in scores.items():
        took = sorted(score.took_s) or [0.0]
        rows.append(
            [
                name.replace("_", " "),
                f"{score.times:,}",
                f"{score.samples:,}",
                str(len(score.lost)),
                f"{took[len(took) // 2] * 1000:.0f} ms",
                f"{took[-1] * 1000:.0f} ms",
            ]
        )
    header = ["FAULT", "TIMES", "SAMPLES CHECKED", "LOSSES", "WHOLE AFTER", "AT MOST"]
    return render(header, rows, right=(1, 2, 3, 4, 5))


def main() -> int:
    known = {fault.__name__: fault for fault in FAULTS}
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="FAULT", help=f"soak, or of {', '.join(known)}")
    parser.add_argument(
        "--for", dest="time", default="60s", metavar="TIME", help="60s unless given"
    )
    options = parser.parse_args()
    seconds = parse_duration(options.time) / 1e9
    if options.names == ["soak"]:
        from chaos.soak import soak

        return soak(seconds)
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no fault {unknown.pop()!r}; there are soak, {', '.join(known)}")
    chosen = tuple(known[name] for name in options.names) or FAULTS
    scores = run(seconds, chosen)
    print(table(scores))
    lost = [f"{name}: {words}" for name, score in scores.items() for words in score.lost]
    for words in lost:
        print(f"lost: {words}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
