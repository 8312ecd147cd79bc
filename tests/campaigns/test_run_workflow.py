"""`manage.py run_workflow` as scripts rely on it: what it prints, how it exits, which run it works on."""

import json
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django_q.models import OrmQ

from campaigns import control
from campaigns.models import Run, RunState, Trigger
from delivery.models import Delivery, KeptMail
from tests.campaigns import cast
from tests.recording_sink import Behaviour
from tests.sinks import ROOT, RecordingSink

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]


def run_workflow(*arguments: str) -> tuple[int, dict]:
    """The exit code of `run_workflow … --json` and what it printed."""
    out = StringIO()
    code = 0
    try:
        call_command("run_workflow", *arguments, "--json", stdout=out)
    except SystemExit as exit_:
        code = exit_.code
    return code, json.loads(out.getvalue())


def refusal(*arguments: str) -> str:
    """What `run_workflow` says when it refuses to begin."""
    with pytest.raises(CommandError) as caught:
        call_command("run_workflow", *arguments)
    assert caught.value.returncode == 2
    return str(caught.value)


# --- As a process ----------------------------------------------------------------------------------------------------


def test_a_process_runs_a_workflow_to_its_end_and_prints_one_json_object(manage):
    with RecordingSink(Behaviour(refuse_recipient="Grace@*")) as sink:
        cast.workflow(through=cast.smtp_pool(sink.port))

        process = manage("run_workflow", "letters", "--json")

        received = sink.received()
    run = Run.objects.get()
    report = json.loads(process.stdout)
    seconds = report.pop("seconds")
    assert (process.returncode, process.stderr) == (0, "")
    assert report == {
        "run_id": run.pk,
        "state": "completed",
        "counts": dict.fromkeys(run.counts, 0) | {"accepted": 2, "rejected": 1},
        "total": 3,
        "problems": {},
        "error": "",
    }
    assert 0 < seconds < 60
    assert sorted(address for mail in received for address in mail.recipients) == sorted(
        cast.ADDRESSES - {"Grace@example.test"}
    )
    assert (run.trigger, run.triggered_by != "") == (Trigger.COMMAND, True)
    assert json.loads(Path(run.log_path).read_text())["counts"] == run.counts


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "There is no workflow 'nowhere'. There is: letters, reminders."),
        (["letters", "--test", "many"], "argument --test: invalid int value: 'many'"),
    ],
)
def test_a_mistake_in_the_command_line_exits_with_2_and_says_what_to_do(manage, arguments, said):
    cast.workflow("letters")
    cast.workflow("reminders")

    process = manage("run_workflow", *arguments)

    assert (process.returncode, process.stdout) == (2, "")
    assert said in process.stderr
    assert "Traceback" not in process.stderr
    assert not Run.objects.exists()


def test_a_wrong_environment_exits_with_2_and_names_the_variable(manage):
    cast.workflow()

    process = manage("run_workflow", "letters", OUTREACH_WORKERS="many")

    assert process.returncode == 2
    assert "OUTREACH_WORKERS must be a whole number from 1 to 64, not 'many'" in process.stderr
    assert not Run.objects.exists()


def test_a_database_without_tables_exits_with_2_and_says_what_to_do(manage, tmp_path):
    process = manage("run_workflow", "letters", DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")

    assert process.returncode == 2
    assert "manage.py migrate" in process.stderr
    assert "Traceback" not in process.stderr


def test_an_interrupted_process_exits_with_1_and_the_next_one_goes_on_with_everybody_once(process_environment):
    people = cast.crowd(150)
    with RecordingSink() as sink:
        cast.workflow(audience=cast.list_audience(people), through=cast.smtp_pool(sink.port, per_second=100))
        process = subprocess.Popen(
            [sys.executable, "manage.py", "run_workflow", "letters"],
            cwd=ROOT,
            env=process_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        sink.wait_for(20)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=30)
        half = cast.fresh(Run.objects.get())
        ends = cast.nonzero(dict.fromkeys(Delivery.objects.values_list("state", flat=True), 1))

        code, report = run_workflow("letters")

        times = sink.counts_by_message_id()
    assert (process.returncode, complained) == (1, "")
    assert "`manage.py run_workflow letters` goes on where this stopped" in " ".join(said.split())
    assert (half.state, set(ends)) == (RunState.SENDING, {"accepted", "ready"})
    assert (code, report["run_id"], report["state"]) == (0, half.pk, "completed")
    assert cast.nonzero(report["counts"]) == {"accepted": 150}
    assert (len(times), set(times.values())) == (150, {1})


# --- What it says ----------------------------------------------------------------------------------------------------


def test_without_json_it_shows_a_reconciled_summary_and_where_the_log_is(capsys):
    people = [cast.ADA, cast.GRACE, ("no address", "Nobody", {"city": "Bath"})]
    workflow = cast.workflow(audience=cast.list_audience(people))

    call_command("run_workflow", "letters")

    said = capsys.readouterr().out
    run = workflow.runs.get()
    assert f"Run {run.pk} of Letters: completed" in said
    assert "Audience: 3 rows read; not usable: 1 impossible address" in said
    assert "every recipient is accounted for" in said
    assert f"Execution log: {run.log_path}" in said


def test_a_run_that_fails_exits_with_1_and_says_why():
    cast.workflow(version=cast.template(text="Hello {{ nickname }}"))

    code, report = run_workflow("letters")

    assert (code, report["state"], report["total"]) == (1, "failed", 0)
    assert "'nickname' in line 1 of the text" in report["error"]
    assert cast.nonzero(report["counts"]) == {}


def test_a_paused_run_is_left_alone_says_so_and_exits_with_1(capsys):
    run = cast.initialized(cast.workflow())
    control.pause(run, "ada")

    with pytest.raises(SystemExit) as exit_:
        call_command("run_workflow", "letters")
    said = capsys.readouterr().out
    code, report = run_workflow("letters")

    assert exit_.value.code == 1
    assert "the run is paused; resume it in the admin" in " ".join(said.split())
    assert (code, report["run_id"], report["state"], report["counts"]) == (1, run.pk, "paused", {})
    assert cast.fresh(run).state == RunState.PAUSED
    assert not KeptMail.objects.exists()


# --- Which workflow --------------------------------------------------------------------------------------------------


def test_a_workflow_is_found_by_its_id_as_well():
    cast.workflow("first")
    second = cast.workflow("second")

    code, report = run_workflow(str(second.pk))

    assert (code, Run.objects.get(pk=report["run_id"]).workflow) == (0, second)


def test_a_slug_of_digits_is_a_slug():
    workflow = cast.workflow("20260301")

    code, report = run_workflow("20260301")

    assert (code, Run.objects.get(pk=report["run_id"]).workflow) == (0, workflow)


@pytest.mark.parametrize("wanted", ["nowhere", "4711", "9" * 40, "²", ""])
def test_an_unknown_workflow_is_told_with_the_known_ones(wanted):
    cast.workflow("letters")
    cast.workflow("reminders")

    assert refusal(wanted) == f"There is no workflow {wanted!r}. There is: letters, reminders."


def test_without_any_workflow_it_says_how_to_get_one():
    assert "make demo" in refusal("letters")


def test_a_workflow_that_cannot_run_is_refused():
    workflow = cast.workflow()
    workflow.steps.all().delete()

    assert refusal("letters") == "Workflow letters has no step: add one with a template."


# --- Which run -------------------------------------------------------------------------------------------------------


def test_each_call_makes_a_run():
    cast.workflow()

    ids = {run_workflow("letters")[1]["run_id"] for _ in range(2)}

    assert len(ids) == 2
    assert KeptMail.objects.count() == 6


@pytest.mark.parametrize("prepare", [cast.queued, cast.initialized])
def test_an_unfinished_run_is_gone_on_with(prepare):
    unfinished = prepare(cast.workflow())

    code, report = run_workflow("letters")

    assert (code, report["run_id"], report["state"]) == (0, unfinished.pk, "completed")
    assert cast.nonzero(report["counts"]) == {"accepted": 3}
    assert Run.objects.count() == 1


def test_the_same_key_makes_one_run_and_reports_it_again():
    cast.workflow()

    first = run_workflow("letters", "--idempotency-key", "order-66")
    again = run_workflow("letters", "--idempotency-key", "order-66")

    assert (first[0], again[0]) == (0, 0)
    assert first[1] | {"seconds": 0} == again[1] | {"seconds": 0}
    assert KeptMail.objects.count() == 3


def test_a_key_makes_a_run_of_its_own_beside_an_unfinished_one():
    unfinished = cast.queued(cast.workflow())

    _, report = run_workflow("letters", "--idempotency-key", "order-66")

    assert Run.objects.get(key="order-66").pk == report["run_id"]
    assert cast.fresh(unfinished).state == RunState.QUEUED


def test_a_key_of_another_workflow_is_refused():
    cast.workflow("letters")
    cast.workflow("reminders")
    run_workflow("letters", "--idempotency-key", "order-66")

    assert "'order-66' started a run of another workflow" in refusal("reminders", "--idempotency-key", "order-66")


def test_detached_it_only_queues_for_the_cluster():
    cast.workflow()

    code, report = run_workflow("letters", "--detach")

    run = Run.objects.get()
    assert (code, report) == (
        0,
        {
            "run_id": run.pk,
            "state": "queued",
            "counts": {},
            "total": 0,
            "problems": {},
            "error": "",
            "seconds": 0.0,
        },
    )
    assert [task.task["args"] for task in OrmQ.objects.all()] == [(run.pk,)]
    assert not Delivery.objects.exists()


def test_detached_it_says_who_takes_the_run(capsys):
    cast.workflow()

    call_command("run_workflow", "letters", "--detach")

    said = " ".join(capsys.readouterr().out.split())
    assert said == f"Run {Run.objects.get().pk} is queued; a running cluster (`manage.py runworkers`) takes it."


def test_a_test_keeps_the_first_mails_in_the_sandbox_and_leaves_the_real_run_alone():
    unfinished = cast.queued(cast.workflow())

    code, report = run_workflow("letters", "--test", "2")

    assert (code, report["state"], report["total"]) == (0, "completed", 2)
    assert report["run_id"] != unfinished.pk
    assert len(cast.kept_for("sandbox")) == 2
    assert cast.kept_for("letters-pool") == []
    assert cast.fresh(unfinished).state == RunState.QUEUED


def test_a_test_of_nobody_is_refused():
    cast.workflow()

    assert "at least one recipient" in refusal("letters", "--test", "0")
