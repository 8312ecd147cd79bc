"""`replay`, `control_run` and `hold_engine` as scripts rely on them: what they do, what they print, how they exit."""

import getpass
import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from campaigns.models import Run, RunState
from delivery import queue
from delivery.models import Engine, EngineEvent
from tests.campaigns import cast
from tests.campaigns.replaying import in_state, over

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]


def said(*arguments: object) -> str:
    out = StringIO()
    call_command(*map(str, arguments), stdout=out)
    return out.getvalue().strip()


def refusal(*arguments: object) -> tuple[int, str]:
    """The exit code and the words of a command that refuses."""
    with pytest.raises(CommandError) as caught:
        call_command(*map(str, arguments))
    return caught.value.returncode, str(caught.value)


def replayed(*arguments: object) -> tuple[int, dict]:
    """The exit code of `replay … --json` and what it printed."""
    out, code = StringIO(), 0
    try:
        call_command("replay", *map(str, arguments), "--json", stdout=out)
    except SystemExit as exit_:
        code = exit_.code
    return code, json.loads(out.getvalue())


# --- replay ----------------------------------------------------------------------------------------------------------


def test_replay_sends_what_failed_again_and_says_who_will():
    run = over("dead", "rejected", "uncertain")

    words = said("replay", run.pk, "--why", "mended")

    assert words == (f"Run {run.pk} sends 2 again. A running cluster takes it, or `manage.py run_workflow letters`.")
    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "ready": 2, "uncertain": 1}
    assert run.events.last().why == "replays 2 deliveries: mended"
    assert run.events.last().by == getpass.getuser()


def test_replay_prints_one_json_object():
    run = over("dead", "rejected", "uncertain")

    assert replayed(run.pk) == (
        0,
        {"run_id": run.pk, "state": "sending", "found": {"dead": 1, "rejected": 1}, "replayed": 2, "dry_run": False},
    )


def test_a_dry_run_counts_and_changes_nothing():
    run = over("dead", "uncertain")
    events = run.events.count()

    code, report = replayed(run.pk, "--dry-run", "--states", "dead,uncertain")

    assert (code, report["found"], report["replayed"], report["dry_run"]) == (0, {"dead": 1, "uncertain": 1}, 0, True)
    assert said("replay", run.pk, "--dry-run") == f"Run {run.pk} would send 1 again: 1 dead. Nothing was changed."
    assert (cast.fresh(run).state, run.events.count()) == (RunState.COMPLETED, events)


def test_replay_takes_only_the_deliveries_named():
    run = over("dead", "dead", "dead")
    ids = [delivery.pk for delivery in in_state(run, "dead")]

    code, report = replayed(run.pk, "--delivery", ids[0], "--delivery", ids[2])

    assert (code, report["found"], report["replayed"]) == (0, {"dead": 2}, 2)
    assert [delivery.pk for delivery in in_state(run, "dead")] == ids[1:2]


def test_replay_of_nothing_exits_with_1_and_says_what_there_is():
    run = over("uncertain")

    assert refusal("replay", run.pk)[0] == 1
    assert "there are 1 uncertain" in refusal("replay", run.pk)[1]
    code, report = replayed(run.pk)
    assert (code, report["replayed"], "there are 1 uncertain" in report["error"]) == (1, 0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay", "999"], "There is no run '999'. The latest are"),
        (["replay", "letters"], "There is no run 'letters'"),
        (
            ["replay", "{run}", "--states", "dead,accepted"],
            "--states must be some of dead, rejected, expired, uncertain",
        ),
        (["replay", "{run}", "--states", ","], "--states must be some of"),
        (["control_run", "999", "pause"], "There is no run '999'"),
        (
            ["hold_engine", "nowhere", "--why", "lunch"],
            "There is no engine 'nowhere'. There is: letters-pool, sandbox.",
        ),
        (["hold_engine", "letters-pool"], "A hold needs a reason: add --why"),
        (["hold_engine", "letters-pool", "--why", "lunch", "--minutes", "0"], "--minutes must be from 1 to"),
        (["hold_engine", "letters-pool", "--release", "--minutes", "5"], "--minutes belongs to a hold"),
    ],
)
def test_a_mistake_in_the_command_line_exits_with_2_and_says_what_to_do(arguments, said):
    run = over("dead")

    code, words = refusal(*[argument.format(run=run.pk) for argument in arguments])

    assert code == 2
    assert said.removesuffix(", sandbox.") in words
    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "dead": 1}


def test_as_processes_the_commands_exit_as_they_promise(manage):
    run = over("dead")

    processes = [
        manage("replay", str(run.pk), "--states", "all"),
        manage("replay", str(run.pk), "--json"),
        manage("replay", str(run.pk)),
        manage("control_run", str(run.pk), "pause", "--why", "lunch"),
        manage("control_run", str(run.pk), "pause"),
        manage("control_run", str(run.pk), "stop"),
        manage("hold_engine", "letters-pool", "--why", "lunch", "--minutes", "5"),
        manage("hold_engine", "letters-pool", "--why", "lunch"),
        manage("hold_engine", "letters-pool"),
    ]

    assert [process.returncode for process in processes] == [2, 0, 1, 0, 1, 2, 0, 1, 2]
    assert all("Traceback" not in process.stderr for process in processes)
    assert json.loads(processes[1].stdout)["replayed"] == 1


# --- control_run -----------------------------------------------------------------------------------------------------


def test_a_run_is_paused_resumed_and_cancelled_and_its_history_says_by_whom():
    run = cast.initialized(cast.workflow())

    said("control_run", run.pk, "pause", "--why", "lunch")
    said("control_run", run.pk, "resume")
    words = said("control_run", run.pk, "cancel", "--why", "a mistake")

    me = getpass.getuser()
    assert list(run.events.values_list("state", "by", "why"))[-3:] == [
        ("paused", me, "lunch"),
        ("sending", me, ""),
        ("cancelled", me, "a mistake"),
    ]
    assert words == f"Run {run.pk} is cancelled: nothing more goes out."
    assert Run.objects.get().state == RunState.CANCELLED


def test_what_is_not_possible_in_a_runs_state_exits_with_1_and_says_why():
    run = over()

    code, words = refusal("control_run", run.pk, "resume")

    assert (code, f"Run {run.pk} is completed" in words) == (1, True)


# --- hold_engine -----------------------------------------------------------------------------------------------------


def test_an_engine_is_held_and_released():
    cast.pool(slug="relay")
    engine = Engine.objects.get(slug="relay")

    held = said("hold_engine", "relay", "--why", "lunch")
    state = (Engine.objects.get(pk=engine.pk).held, Engine.objects.get(pk=engine.pk).hold_reason)
    released = said("hold_engine", "Relay", "--release", "--why", "fed")

    assert held == "Engine relay is held until `manage.py hold_engine relay --release`."
    assert state == (True, "lunch")
    assert released == "Engine relay is released."
    assert not Engine.objects.get(pk=engine.pk).held
    me = getpass.getuser()
    assert list(EngineEvent.objects.values_list("what", "by", "why")) == [
        ("held", me, "lunch"),
        ("released", me, "fed"),
    ]


def test_a_hold_for_minutes_ends_by_itself():
    cast.pool(slug="relay")

    said("hold_engine", "relay", "--why", "lunch", "--minutes", "30")

    engine = Engine.objects.get(slug="relay")
    minutes = (engine.held_until - engine.events.get().at).total_seconds() / 60
    assert minutes == pytest.approx(30, abs=0.1)


def test_a_second_hold_exits_with_1_and_says_why_the_engine_is_held():
    cast.pool(slug="relay")
    said("hold_engine", "relay", "--why", "lunch")

    code, words = refusal("hold_engine", "relay", "--why", "supper")

    assert (code, "is held (lunch); release it first" in words) == (1, True)
