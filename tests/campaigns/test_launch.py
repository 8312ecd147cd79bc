"""Starting a run: one row for one key, whoever asks and however often."""

import pytest
from django_q.models import OrmQ

from campaigns.exceptions import CampaignError, KeyTaken, NotReady
from campaigns.launch import launch
from campaigns.models import Run, RunEvent, RunState, Trigger, Workflow
from tests.campaigns import cast


def launched(workflow: Workflow, **options: object) -> Run:
    return launch(workflow, **{"trigger": Trigger.API, "by": "ada"} | options)


@pytest.mark.django_db
def test_a_launched_run_is_queued_and_says_by_whom_and_by_what():
    workflow = cast.workflow()

    run = launched(workflow, trigger=Trigger.ADMIN, by="grace", key="order-66", test_limit=5)

    run = cast.fresh(run)
    assert (run.workflow, run.state, run.trigger, run.triggered_by, run.key, run.test_limit) == (
        workflow,
        RunState.QUEUED,
        Trigger.ADMIN,
        "grace",
        "order-66",
        5,
    )
    assert list(run.events.values_list("state", "by", "why")) == [("queued", "grace", "triggered by admin")]


@pytest.mark.django_db
@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_every_launch_makes_a_run(key):
    workflow = cast.workflow()

    first, second = launched(workflow, key=key), launched(workflow, key=key)

    assert first != second
    assert (first.key, second.key) == (None, None)


@pytest.mark.django_db
def test_the_same_key_gives_the_same_run_whatever_became_of_it():
    workflow = cast.workflow()
    run = launched(workflow, key="order-66")
    Run.objects.filter(pk=run.pk).update(state=RunState.COMPLETED)

    again = launched(workflow, key="order-66", by="somebody else")

    assert (again, again.state, again.triggered_by) == (run, RunState.COMPLETED, "ada")
    assert (Run.objects.count(), RunEvent.objects.count()) == (1, 1)


@pytest.mark.django_db
def test_another_key_gives_another_run():
    workflow = cast.workflow()

    assert launched(workflow, key="order-66") != launched(workflow, key="order-67")


@pytest.mark.django_db
def test_a_key_that_another_workflow_used_is_refused():
    launched(cast.workflow("first"), key="order-66")
    second = cast.workflow("second")

    with pytest.raises(KeyTaken, match="'order-66' started a run of another workflow"):
        launched(second, key="order-66")

    assert not second.runs.exists()


@pytest.mark.django_db
def test_a_key_that_is_too_long_is_refused_in_a_sentence():
    workflow = cast.workflow()

    with pytest.raises(CampaignError, match="at most 200 characters"):
        launched(workflow, key="k" * 201)

    assert launched(workflow, key="k" * 200).key == "k" * 200
    assert Run.objects.count() == 1


@pytest.mark.django_db
def test_a_name_that_is_too_long_is_cut():
    assert launched(cast.workflow(), by="a" * 1000).triggered_by == "a" * 150


@pytest.mark.django_db
def test_a_workflow_without_a_step_is_not_started():
    workflow = cast.workflow()
    workflow.steps.all().delete()

    with pytest.raises(NotReady, match="Workflow letters has no step: add one with a template"):
        launched(workflow)

    assert not Run.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("limit", [0, -1])
def test_a_test_of_nobody_is_not_started(limit):
    with pytest.raises(NotReady, match="at least one recipient"):
        launched(cast.workflow(), test_limit=limit)

    assert not Run.objects.exists()


# --- With real commits -----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_launch_wakes_the_cluster_once_and_a_repeated_one_does_not():
    workflow = cast.workflow()

    run = launched(workflow, key="order-66")
    launched(workflow, key="order-66")

    assert [task.task["args"] for task in OrmQ.objects.all()] == [(run.pk,)]


@pytest.mark.django_db(transaction=True)
def test_a_launch_for_this_process_leaves_the_cluster_asleep():
    launched(cast.workflow(), here=True)

    assert not OrmQ.objects.exists()


def race(workflows: list[Workflow], key: str) -> list[Run | KeyTaken]:
    """What each of the workflows gets that are launched with the same key at the same time."""

    def start_one(number: int) -> Run | KeyTaken:
        try:
            return launched(workflows[number], key=key, here=True)
        except KeyTaken as refusal:
            return refusal

    return cast.side_by_side(len(workflows), start_one)


@pytest.mark.django_db(transaction=True)
def test_threads_that_race_with_one_key_get_one_run():
    workflow = cast.workflow()

    for number in range(10):
        runs = race([workflow] * 3, f"key {number}")

        assert [type(run) for run in runs] == [Run] * 3
        assert len({run.pk for run in runs}) == 1

    assert (Run.objects.count(), RunEvent.objects.count()) == (10, 10)


@pytest.mark.django_db(transaction=True)
def test_of_two_workflows_that_race_with_one_key_one_is_refused():
    workflows = [cast.workflow("first"), cast.workflow("second")]

    for number in range(10):
        results = race(workflows, f"key {number}")

        assert sorted(type(result).__name__ for result in results) == ["KeyTaken", "Run"]

    assert Run.objects.count() == 10
