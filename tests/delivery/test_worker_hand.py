"""What a worker takes in hand: never more than a bound, the urgent first, equals in turn, and so much as it is fast."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.core.dispatch import UncertainPolicy
from delivery.queue import BatchView
from delivery.worker.hand import AT_ONCE, FEED, FORGETTING, GRAIN, LEAST, MOST, OVERTAKEN, Hand

pytestmark = pytest.mark.once

POOL = 1
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def batch(number, priority=0, pool=POOL):
    return BatchView(number, pool, priority, "", UncertainPolicy.HOLD)


def bound_at(pace):
    """So many may be held of a pool that has had this pace of late."""
    return max(LEAST, min(MOST, int(pace * FEED)))


def fill(hand, view, *bounds):
    """Takes of a batch as often as there is room. Returns how many that were."""
    taken = 0
    while room := hand.room(view, *bounds):
        hand.took(view, room)
        taken += room
    return taken


def with_pace(per_second, pool=POOL):
    """A hand that has let go so many of a pool within the last second, and holds nothing."""
    hand = Hand()
    pacer = batch(999, pool=pool)
    hand.took(pacer, per_second)
    for _ in range(per_second):
        hand.let_go(pacer.id)
    hand.beat(1.0)
    hand.forget(pacer.id)
    return hand


# ---- whatever happens ----

views = st.builds(batch, st.integers(1, 6), st.just(0), st.just(0)).map(
    lambda view: batch(view.id, priority=view.id % 3, pool=view.id // 4)
)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("lease"), views, st.floats(0.0, 1.0)),
        st.tuples(st.just("let go"), views, st.integers(1, 400)),
        st.tuples(st.just("beat"), views, st.floats(0.1, 3.0)),
        st.tuples(st.just("forget"), views, st.none()),
    ),
    max_size=60,
)


@given(deeds)
def test_its_counts_agree_whatever_happens_and_the_urgent_never_add_up_to_more_than_the_bound(story):
    hand = Hand()
    held, known, gone, pace = Counter(), {}, Counter(), Counter()
    for deed, view, value in story:
        match deed:
            case "lease":
                room = hand.room(view)
                ahead = sum(
                    n for i, n in held.items() if known[i].pool == view.pool and known[i].priority <= view.priority
                )
                assert 0 <= room <= AT_ONCE
                assert not room or ahead + room <= bound_at(pace[view.pool])
                # Fewer may be ready than there is room for.
                if count := int(room * value):
                    known[view.id] = view
                    hand.took(view, count)
                    held[view.id] += count
            case "let go":
                for _ in range(min(value, held[view.id])):
                    hand.let_go(view.id)
                    held[view.id] -= 1
                    gone[view.pool] += 1
            case "beat":
                hand.beat(value)
                for pool in (0, 1):
                    pace[pool] = max(gone[pool] / value, pace[pool] * FORGETTING)
                gone.clear()
            case "forget":
                hand.forget(view.id)
        assert hand.total == sum(held.values())
        assert {i: hand.of(i) for i in range(1, 7)} == {i: held[i] for i in range(1, 7)}
        assert hand.batches() >= {i for i, n in held.items() if n}


@given(st.integers(0, 3000))
def test_there_is_room_until_so_few_are_missing_that_they_are_not_worth_a_statement(pace):
    hand = with_pace(pace)
    bound = bound_at(pace)

    held = fill(hand, batch(1))

    assert bound - min(AT_ONCE, bound // 3) < held <= bound


# ---- the urgent ----


def test_an_urgent_batch_gets_room_while_a_less_urgent_one_fills_the_hand():
    hand = Hand()
    mass, urgent = batch(1, priority=5), batch(2, priority=-1)
    filled = fill(hand, mass)

    assert (filled, hand.room(mass), hand.room(urgent)) == (LEAST, 0, LEAST)


def test_a_less_urgent_batch_gets_no_room_while_an_urgent_one_fills_the_hand():
    hand = Hand()
    fill(hand, batch(1, priority=-1))

    assert hand.room(batch(2, priority=5)) == 0


def test_a_full_hand_for_one_pool_leaves_the_others_their_room():
    hand = Hand()
    fill(hand, batch(1))

    assert hand.room(batch(2, pool=POOL + 1)) == LEAST


def test_equally_urgent_batches_take_turns_and_the_more_urgent_goes_before_all_of_them():
    hand = Hand()
    equals = [batch(number) for number in (1, 2, 3)]
    urgent = batch(9, priority=-1)
    first = []
    for _ in range(7):
        turn = hand.in_turn([*equals, urgent])
        assert turn[0] is urgent
        first.append(turn[1].id)
        hand.took(turn[1], 10)

    assert first == [1, 2, 3, 1, 2, 3, 1]


def test_a_batch_that_comes_later_has_the_next_turn():
    hand = Hand()
    hand.took(batch(1), 10)
    hand.took(batch(2), 10)

    assert [view.id for view in hand.in_turn([batch(1), batch(2), batch(3)])] == [3, 1, 2]


# ---- deadlines ----


def at(minute):
    return NOON + timedelta(minutes=minute)


def timed(number, minute):
    return replace(batch(number), deadline=at(minute))


def test_an_earlier_deadline_gets_room_while_later_ones_fill_the_hand_and_a_later_one_gets_none():
    hand = Hand()
    hand.took(timed(1, 5), LEAST, [at(5)] * LEAST)

    assert hand.room(timed(2, 4)) == LEAST
    assert hand.room(timed(2, 5)) == hand.room(timed(2, 6)) == 0


def test_what_is_left_of_a_batch_is_no_more_urgent_than_the_last_that_was_taken_until_somebody_looks():
    hand = Hand()
    first, other = timed(1, 1), timed(2, 2)
    hand.took(first, 2, [at(1), at(3)])

    assert [view.id for view in hand.in_turn([first, other])] == [2, 1]
    hand.looked()
    assert [view.id for view in hand.in_turn([first, other])] == [1, 2]


def test_of_what_is_left_without_a_deadline_all_that_has_one_is_more_urgent():
    hand = Hand()
    hand.took(timed(1, 1), 2, [at(1)])

    assert [view.id for view in hand.in_turn([timed(1, 1), timed(2, 9)])] == [2, 1]


@pytest.mark.parametrize("pace", [0, 600])
def test_however_much_is_overtaken_the_hand_stays_bounded_and_the_most_urgent_waits_for_little_to_go(pace):
    hand = with_pace(pace)
    for minute in range(1000, 0, -1):
        room = hand.room(timed(1, minute))
        hand.took(timed(1, minute), room, [at(minute)] * room)
        hand.looked()
    gone = 0
    while not hand.room(timed(1, 0)):
        hand.let_go(1, at(1000))
        gone += 1

    assert hand.total + gone <= OVERTAKEN * bound_at(pace)
    assert 1 <= gone <= 1 + pace * GRAIN


# ---- the pace ----


def test_it_holds_a_second_and_a_halfs_work_within_bounds():
    bounds = {pace: fill(with_pace(pace), batch(1)) for pace in (0, 10, 400, 100_000)}

    # Of the most, the last hundred are not worth a statement of their own.
    assert bounds == {0: LEAST, 10: LEAST, 400: 600, 100_000: MOST // AT_ONCE * AT_ONCE}


def test_a_pool_is_known_to_be_fast_at_once_and_forgotten_to_have_been_so_beat_by_beat():
    hand = with_pace(600)
    paces = []
    for _ in range(4):
        held = fill(hand, batch(1))
        paces.append(held)
        hand = _emptied_without_pace(hand, held)

    assert paces == [
        900,
        int(600 * FORGETTING * FEED),
        int(600 * FORGETTING**2 * FEED),
        int(600 * FORGETTING**3 * FEED),
    ]


def _emptied_without_pace(hand, held):
    """The hand after a beat in which nothing was done, and then with nothing in it."""
    hand.beat(1.0)
    for _ in range(held):
        hand.let_go(1)
    hand._pools[POOL].let_go = 0  # as if it had been another worker that sent them
    return hand


def test_the_pace_is_measured_over_the_time_that_has_passed():
    hand = Hand()
    hand.took(batch(1), 300)
    for _ in range(300):
        hand.let_go(1)
    hand.beat(0.5)

    assert fill(hand, batch(1)) == 900


def test_engines_that_take_many_at_once_lift_both_bounds():
    slow, fast = Hand(), with_pace(100_000)

    assert fill(slow, batch(1), 600, MOST) == 600
    assert fill(fast, batch(1), LEAST, 2400) == 2400


# ---- when to look again ----


@given(st.integers(0, 3000))
def test_letting_go_rings_exactly_when_there_is_room_again(pace):
    hand = with_pace(pace)
    view = batch(1)
    held = fill(hand, view)
    rings = []
    while not rings:
        held -= 1
        if hand.let_go(view.id):
            rings.append(held)
        else:
            assert hand.room(view) == 0

    assert hand.room(view) > 0


def test_it_rings_once_for_the_room_and_once_for_the_last_of_a_batch():
    hand = Hand()
    fill(hand, batch(1))

    rings = [left for left in range(LEAST - 1, -1, -1) if hand.let_go(1)]

    assert rings == [LEAST - LEAST // 3, 0]


def test_the_last_of_a_batch_rings_although_another_fills_the_hand():
    hand = Hand()
    hand.took(batch(1), 1)
    fill(hand, batch(2))

    assert hand.let_go(1)
    assert hand.room(batch(2)) == 0


# ---- batches ----


def test_a_batch_is_remembered_until_nothing_of_it_is_in_hand_and_it_is_forgotten():
    hand = Hand()
    hand.took(batch(1), 1)
    hand.took(batch(2), 1)
    hand.let_go(2)

    hand.forget(1)
    hand.forget(2)
    hand.forget(3)

    assert (hand.batches(), hand.of(1), hand.of(2), hand.of(3)) == ({1}, 1, 0, 0)
