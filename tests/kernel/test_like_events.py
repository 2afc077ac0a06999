"""Events of one recording that have one name: they look different, and none is removed by mistake."""

from __future__ import annotations

import pytest

import perfkeep
from perfkeep.errors import UsageError
from perfkeep.testing.requirements import perf_events, requires, root
from support.commands import Cli

pytestmark = [requires(perf_events, root), pytest.mark.usefixtures("running")]

SWITCH = "sched:sched_switch"


@pytest.fixture
def recording() -> perfkeep.Recording:
    made = perfkeep.start("a", [(SWITCH, "prev_prio < 100")], cpus=[0], ring="64K")
    made.add([(SWITCH, "prev_prio >= 100")])
    made.add([SWITCH], call_chains=True)
    return made


def test_show_and_json_tell_filters_and_call_chains(
    recording: perfkeep.Recording, cli: Cli
) -> None:
    shown = cli("show", "a").out
    assert "CHAINS" in shown and "prev_prio < 100" in shown and "prev_prio >= 100" in shown
    (listed,) = cli("ls", "--json").json
    told = [(one["filter"], one["call_chains"]) for one in listed["events"]]
    assert told == [("prev_prio < 100", False), ("prev_prio >= 100", False), (None, True)]


def test_a_spec_that_several_have_is_refused_and_an_id_removes_one(
    recording: perfkeep.Recording, cli: Cli
) -> None:
    ids = [event.id for event in recording.info.events]
    refused = cli("remove", "a", "-e", SWITCH)
    assert refused.code == 2 and len(recording.info.events) == 3
    assert f"perfkeep remove a -e {ids[-1]}" in refused.err
    assert cli("remove", "a", "-e", ids[1]).code == 0
    assert [event.id for event in recording.info.events] == [ids[0], ids[2]]


def test_an_event_that_is_named_twice_is_refused(recording: perfkeep.Recording) -> None:
    with pytest.raises(UsageError, match="named twice"):
        perfkeep.start("b", ["cpu-clock", "cpu-clock"])
    with pytest.raises(UsageError, match="named twice"):
        recording.add(["cpu-clock", "cpu-clock"])
