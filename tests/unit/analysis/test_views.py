"""perfkeep.analysis.views: what a recording must contain, said in one sentence where it does not."""

from __future__ import annotations

import pytest

from perfkeep.analysis.data import Data
from perfkeep.analysis.sql import SqlError, ask, connect, schema
from perfkeep.formats.perf_data.reader import PerfData

NOTHING = Data(PerfData([], memoryview(b""), 0, {}))
NEEDS = {
    "off_cpu": "sched:sched_switch",
    "run_queue": "sched:sched_switch",
    "syscalls": "syscalls:sys_enter_X",
    "flames": "samples",
}


@pytest.mark.parametrize("view", NEEDS)
@pytest.mark.parametrize("what", ["*", "count(*)"])
def test_a_view_of_what_was_not_recorded_says_what_it_needs(view: str, what: str) -> None:
    with pytest.raises(SqlError) as caught:
        ask(connect(NOTHING), f"SELECT {what} FROM {view}")
    text = str(caught.value)
    assert f"{view}: " in text and NEEDS[view] in text and "\n" not in text


def test_views_that_cannot_answer_are_not_listed() -> None:
    assert not {table for table, _, _ in schema(connect(NOTHING))} & set(NEEDS)
