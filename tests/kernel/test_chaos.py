"""A short run of what `make chaos` does for hours: every fault once, and some at random."""

from __future__ import annotations

from chaos.__main__ import run, table
from chaos.faults import FAULTS
from perfkeep.testing.requirements import (
    perf_events,
    requires,
    root,
    seccomp_notification,
    tracefs,
)

pytestmark = requires(perf_events, tracefs, root, seccomp_notification)


def test_whatever_is_killed_nothing_is_lost() -> None:
    scores = run(15.0)
    lost = [f"{name}: {words}" for name, score in scores.items() for words in score.lost]
    assert not lost, f"{lost}\n{table(scores)}"
    assert {name for name, score in scores.items() if score.times} == {
        fault.__name__ for fault in FAULTS
    }
    assert all(score.samples > 0 for score in scores.values())
