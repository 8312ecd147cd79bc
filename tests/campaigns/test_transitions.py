"""The states of a run: which moves are legal, what each records, and that of two who want the same one gets it."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import Q

from campaigns.exceptions import IllegalMove
from campaigns.models import Run, RunState, Trigger
from campaigns.transitions import claim_initializing, legal_moves, move, still_initializing, try_move
from tests.campaigns import cast

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

LEGAL = {
    "queued": {"initializing", "failed", "cancelled"},
    "initializing": {"sending", "failed", "cancelled"},
    "sending": {"paused", "completed", "failed", "cancelled"},
    "paused": {"sending", "failed", "cancelled"},
    "completed": set(),
    "failed": set(),
    "cancelled": set(),
}


def run_in(state: str, **fields: object) -> Run:
    workflow = Run.objects.first().workflow if Run.objects.exists() else cast.workflow()
    return Run.objects.create(workflow=workflow, trigger=Trigger.COMMAND, state=state, **fields)


def events(run: Run) -> list[tuple[str, str, str]]:
    return list(run.events.values_list("state", "by", "why"))


# --- The table -------------------------------------------------------------------------------------------------------


def test_the_table_names_every_state():
    assert set(LEGAL) == set(RunState.values)


@pytest.mark.parametrize("state", LEGAL)
def test_a_run_may_go_where_the_table_says(state):
    assert legal_moves(state) == LEGAL[state]


@pytest.mark.django_db
@pytest.mark.parametrize(("state", "target"), [(state, target) for state in LEGAL for target in sorted(LEGAL[state])])
def test_a_legal_move_is_made_and_recorded_with_who_and_why(state, target):
    run = run_in(state)

    move(run.pk, RunState(target), by="ada", why="because", error="a field")

    assert (cast.fresh(run).state, cast.fresh(run).error) == (target, "a field")
    assert events(run) == [(target, "ada", "because")]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "target"),
    # Nothing leads back to queued, so that nobody can ask for it.
    [(state, target) for state in LEGAL for target in LEGAL if target not in {*LEGAL[state], "queued"}],
)
def test_an_illegal_move_is_refused_with_the_states_and_changes_nothing(state, target):
    run = run_in(state)

    assert not try_move(run.pk, RunState(target), by="ada", error="a field")
    with pytest.raises(IllegalMove, match=f"Run {run.pk} is {state}: only a run that is .* can become {target}"):
        move(run.pk, RunState(target), by="ada")

    assert (cast.fresh(run).state, cast.fresh(run).error) == (state, "")
    assert events(run) == []


@pytest.mark.django_db
def test_a_move_may_be_asked_for_from_fewer_states_than_are_legal():
    run = run_in("initializing")

    assert not try_move(run.pk, RunState.SENDING, sources=(RunState.PAUSED,))

    assert cast.fresh(run).state == "initializing"


@pytest.mark.django_db
def test_a_move_may_depend_on_more_than_the_state():
    run = run_in("queued", triggered_by="ada")

    assert not try_move(run.pk, RunState.CANCELLED, only=Q(triggered_by="grace"))
    assert try_move(run.pk, RunState.CANCELLED, only=Q(triggered_by="ada"))


@pytest.mark.django_db
def test_a_move_concerns_one_run_only():
    run, other = run_in("queued"), run_in("queued")

    move(run.pk, RunState.CANCELLED)

    assert (cast.fresh(other).state, events(other)) == ("queued", [])


@pytest.mark.django_db
def test_what_is_too_long_for_the_record_is_cut():
    run = run_in("queued")

    move(run.pk, RunState.CANCELLED, by="a" * 1000, why="b" * 1000)

    assert events(run) == [("cancelled", "a" * 150, "b" * 500)]


# --- The right to initialise -----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_right_to_initialise_is_kept_while_it_is_renewed():
    run = run_in("queued")

    assert claim_initializing(run.pk, "first", NOON + MINUTE, NOON)
    assert still_initializing(run.pk, "first", NOON + 2 * MINUTE, rows_read=7)
    assert not claim_initializing(run.pk, "second", NOON + 3 * MINUTE, NOON + 2 * MINUTE - timedelta(seconds=1))

    run = cast.fresh(run)
    assert (run.initializer, run.initializer_until, run.rows_read) == ("first", NOON + 2 * MINUTE, 7)


@pytest.mark.django_db
def test_the_right_to_initialise_passes_on_once_it_has_run_out():
    run = run_in("queued")
    claim_initializing(run.pk, "first", NOON + MINUTE, NOON)

    assert claim_initializing(run.pk, "second", NOON + 3 * MINUTE, NOON + 2 * MINUTE)

    assert not still_initializing(run.pk, "first", NOON + 4 * MINUTE, rows_read=7)
    run = cast.fresh(run)
    assert (run.initializer, run.rows_read) == ("second", 0)
    assert events(run)[-1] == ("initializing", "", "taken over from a process that ended")


@pytest.mark.django_db
def test_the_right_to_initialise_passes_on_at_once_when_its_holder_is_gone():
    run = run_in("queued")
    claim_initializing(run.pk, "first", NOON + MINUTE, NOON)

    assert not claim_initializing(run.pk, "second", NOON + MINUTE, NOON, gone="somebody else")
    assert claim_initializing(run.pk, "second", NOON + MINUTE, NOON, gone="first")

    assert cast.fresh(run).initializer == "second"


@pytest.mark.django_db
def test_a_right_that_was_given_up_is_free_in_the_same_instant():
    run = run_in("initializing", initializer="", initializer_until=NOON)

    assert claim_initializing(run.pk, "second", NOON + MINUTE, NOON)

    assert cast.fresh(run).initializer == "second"


@pytest.mark.django_db
def test_a_run_that_sends_before_its_audience_is_read_is_taken_over_as_well_and_goes_on_sending():
    run = run_in("sending", initializer="first", initializer_until=NOON, error="of the first one")

    assert not claim_initializing(run.pk, "second", NOON + MINUTE, NOON - timedelta(seconds=1))
    assert claim_initializing(run.pk, "second", NOON + MINUTE, NOON)

    assert not still_initializing(run.pk, "first", NOON + MINUTE)
    run = cast.fresh(run)
    assert (run.state, run.initializer, run.initializer_until, run.error) == ("sending", "second", NOON + MINUTE, "")
    assert events(run) == [("sending", "", "taken over from a process that ended")]


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["initializing", "sending", "paused"])
def test_the_right_is_renewed_until_the_last_delivery_is_written_whether_or_not_mails_go_out(state):
    run = run_in(state, initializer="first", initializer_until=NOON)

    assert still_initializing(run.pk, "first", NOON + MINUTE, rows_read=7)
    Run.objects.filter(pk=run.pk).update(filled_at=NOON)
    assert not still_initializing(run.pk, "first", NOON + 2 * MINUTE, rows_read=8)

    assert (cast.fresh(run).initializer_until, cast.fresh(run).rows_read) == (NOON + MINUTE, 7)


@pytest.mark.django_db
def test_a_paused_run_is_not_taken_over_before_it_is_resumed():
    run = run_in("paused", initializer="first", initializer_until=NOON - MINUTE)

    assert not claim_initializing(run.pk, "second", NOON + MINUTE, NOON, gone="first")

    assert (cast.fresh(run).initializer, events(run)) == ("first", [])


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["sending", "paused", "completed", "failed", "cancelled"])
def test_nobody_has_the_right_to_initialise_a_run_that_is_further(state):
    run = run_in(state, initializer="first", initializer_until=NOON - MINUTE, filled_at=NOON - MINUTE)

    assert not claim_initializing(run.pk, "second", NOON + MINUTE, NOON, gone="first")
    assert not still_initializing(run.pk, "first", NOON + MINUTE)

    assert (cast.fresh(run).state, events(run)) == (state, [])


# --- Two at once -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_several_that_want_to_initialise_a_run_at_once_one_does():
    for _ in range(10):
        run = run_in("queued")

        claimed = cast.side_by_side(
            3, lambda n, run=run: claim_initializing(run.pk, f"claimer {n}", NOON + MINUTE, NOON)
        )

        assert sorted(claimed) == [False, False, True]
        assert cast.fresh(run).initializer == f"claimer {claimed.index(True)}"
        assert events(run) == [("initializing", "", "")]


@pytest.mark.django_db(transaction=True)
def test_of_several_that_want_to_take_a_run_over_at_once_one_does():
    for _ in range(10):
        run = run_in("initializing", initializer="gone", initializer_until=NOON + MINUTE)

        claimed = cast.side_by_side(
            3, lambda n, run=run: claim_initializing(run.pk, f"claimer {n}", NOON + MINUTE, NOON, gone="gone")
        )

        assert sorted(claimed) == [False, False, True]
        assert cast.fresh(run).initializer == f"claimer {claimed.index(True)}"
        assert len(events(run)) == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_opposite_moves_at_once_one_is_made():
    for _ in range(10):
        run = run_in("sending")
        targets = (RunState.COMPLETED, RunState.CANCELLED)

        made = cast.side_by_side(2, lambda n, run=run, targets=targets: try_move(run.pk, targets[n]))

        assert sorted(made) == [False, True]
        assert [state for state, _, _ in events(run)] == [targets[made.index(True)]] == [cast.fresh(run).state]
