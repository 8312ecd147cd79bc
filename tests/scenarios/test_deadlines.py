"""Deadlines in virtual time: what the earliest deadline first could meet, the worker's own code meets."""

import random
from collections import Counter

import pytest

from tests.scenarios.timed_loads import Load, carried_out, earliest_first, in_order_of_coming, missed

pytestmark = pytest.mark.once

LOADS = 50  # in each of the parts, which several workers share
PARTS = 3


@pytest.mark.parametrize("part", range(PARTS))
def test_no_deadline_is_lost_that_the_earliest_deadline_first_could_meet(part, seed):
    hard = 0
    for number in range(LOADS):
        name = f"{seed} {part} {number}"
        load = Load.by_chance(random.Random(name))
        assert not missed(load, earliest_first(load), load.blocking), f"load {name}: the reference cannot meet it"

        seen = carried_out(load, name)

        lost = [job for job, end in zip(load.urgent, seen.ends, strict=True) if end is None or end > job.deadline]
        assert not lost, f"load {name}: {len(lost)} of {len(load.urgent)} are lost, the first of them {min(lost)}"
        assert seen.states == Counter(accepted=len(load.jobs)), f"load {name}"
        hard += bool(missed(load, in_order_of_coming(load)))
    # Were none of the loads any different in the order of their coming, this would show nothing.
    assert hard > LOADS / 8


def test_each_mail_more_urgent_than_all_before_is_in_time_although_a_worker_cannot_hold_all_that_they_overtake():
    load = Load.each_more_urgent(500)
    assert not missed(load, earliest_first(load), load.blocking)
    assert len(missed(load, in_order_of_coming(load))) > 200

    seen = carried_out(load, "each more urgent")

    assert seen.states == Counter(accepted=len(load.jobs))
    assert not missed(load, seen.ends)
