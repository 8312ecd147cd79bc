"""The API's controls: runs, single deliveries, engines. What it shows, does, and refuses, and with which status."""

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from rest_framework.test import APIClient

from campaigns import control
from campaigns.models import Run, RunState
from delivery import queue
from delivery.hold import hold
from delivery.models import Engine, EngineEvent
from tests.campaigns import cast
from tests.campaigns.replaying import in_state, over
from tests.problems import detail, errors

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]

RUNS = "/api/v1/runs/"
ENGINES = "/api/v1/engines/"


def client(name: str, *permissions: str, **kwargs: object) -> APIClient:
    """Somebody who may do just this."""
    user = User.objects.create(username=name)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    signed_in = APIClient(**kwargs)
    signed_in.force_login(user)
    return signed_in


@pytest.fixture
def operator() -> APIClient:
    return client("ada", "view_run", "send_workflow", "view_delivery", "view_engine", "change_engine")


@pytest.fixture
def viewer() -> APIClient:
    return client("viewer", "view_run", "view_delivery", "view_engine")


def post(who: APIClient, url: str, **body: object) -> tuple[int, dict]:
    response = who.post(url, body, format="json")
    return response.status_code, response.json()


def url(run: Run, deed: str = "") -> str:
    return f"{RUNS}{run.pk}/" + (f"{deed}/" if deed else "")


# --- What is shown ---------------------------------------------------------------------------------------------------


def test_a_run_under_way_shows_how_far_it_is(operator):
    run = cast.initialized(cast.workflow())
    before = operator.get(url(run)).json()
    queue.cancel(run.batch_id)

    after = operator.get(url(run)).json()

    assert {name: before[name] for name in ("id", "state", "total", "open", "error", "workflow_slug")} == {
        "id": run.pk,
        "state": "sending",
        "total": 3,
        "open": 3,
        "error": "",
        "workflow_slug": "letters",
    }
    assert (before["counts"]["cancelled"], after["counts"]["cancelled"], after["open"]) == (0, 3, 0)


def test_a_run_that_is_over_shows_every_end_and_when(operator):
    run = over("dead")

    shown = operator.get(url(run)).json()

    assert shown["counts"] == dict.fromkeys(cast.fresh(run).counts, 0) | {"accepted": 2, "dead": 1}
    assert (shown["state"], shown["total"], shown["open"], shown["problem_counts"]) == ("completed", 3, 0, {})
    assert shown["ended_at"] is not None


def test_runs_are_listed_newest_first(operator):
    first = cast.queued(cast.workflow("first"))
    second = cast.queued(cast.workflow("second"))

    assert [run["id"] for run in operator.get(RUNS).json()["results"]] == [second.pk, first.pk]


def test_engines_are_found_by_slug_or_id(operator):
    cast.pool(slug="relay")
    engine = Engine.objects.get(slug="relay")

    (listed,) = operator.get(ENGINES).json()["results"]

    assert (listed["id"], listed["slug"], listed["kind"], listed["held"]) == (engine.pk, "relay", "sandbox", False)
    assert operator.get(f"{ENGINES}relay/").json() == operator.get(f"{ENGINES}{engine.pk}/").json() == listed


@pytest.mark.parametrize(
    "path", ["runs/999/", "runs/9999999999999999999/", "runs/letters/", "engines/nowhere/", "engines/999/"]
)
def test_what_is_not_there_is_not_found(operator, path):
    assert operator.get(f"/api/v1/{path}").status_code == 404


# --- Runs ------------------------------------------------------------------------------------------------------------


def test_a_run_is_paused_resumed_and_cancelled_by_whoever_asked(operator):
    run = cast.initialized(cast.workflow())

    answers = [post(operator, url(run, deed), why=f"why {deed}") for deed in ("pause", "resume", "cancel")]

    assert [(status, body["state"]) for status, body in answers] == [
        (200, "paused"),
        (200, "sending"),
        (200, "cancelled"),
    ]
    assert list(run.events.values_list("state", "by", "why"))[-3:] == [
        ("paused", "ada", "why pause"),
        ("sending", "ada", "why resume"),
        ("cancelled", "ada", "why cancel"),
    ]


@pytest.mark.parametrize("deed", ["pause", "resume", "cancel"])
def test_a_move_that_is_not_possible_is_answered_with_409_and_its_reason(operator, deed):
    run = over()
    events = run.events.count()

    status, body = post(operator, url(run, deed))

    assert status == 409
    assert body["detail"].startswith(f"Run {run.pk} is completed: only a run that is ")
    assert (cast.fresh(run).state, run.events.count()) == (RunState.COMPLETED, events)


def test_what_failed_of_a_run_is_sent_again(operator):
    run = over("dead", "rejected", "uncertain")

    status, body = post(operator, url(run, "retry-failed"), why="mended")

    assert (status, body["replayed"], body["state"], body["open"]) == (200, 2, "sending", 2)
    assert (run.events.last().by, run.events.last().why) == ("ada", "replays 2 deliveries: mended")
    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "ready": 2, "uncertain": 1}


def test_uncertain_ones_are_sent_again_when_asked_for_by_name(operator):
    run = over("uncertain")

    refused = post(operator, url(run, "retry-failed"))
    status, body = post(operator, url(run, "retry-failed"), uncertain=True)

    assert (refused[0], "there are 1 uncertain" in refused[1]["detail"]) == (409, True)
    assert (status, body["replayed"]) == (200, 1)


def test_a_cancelled_run_is_not_retried(operator):
    run = cast.initialized(cast.workflow())
    control.cancel(run, "ada")

    status, body = post(operator, url(run, "retry-failed"))

    assert (status, "was cancelled" in body["detail"]) == (409, True)


def test_one_delivery_is_sent_again(operator):
    run = over("dead", "dead")
    first, second = in_state(run, "dead")

    answer = post(operator, f"/api/v1/deliveries/{first.pk}/replay/", why="she asked")

    assert answer == (200, {"id": first.pk, "state": "ready", "run": run.pk})
    assert [delivery.pk for delivery in in_state(run, "dead")] == [second.pk]
    assert post(operator, f"/api/v1/deliveries/{first.pk}/replay/")[0] == 409
    assert post(operator, "/api/v1/deliveries/999999/replay/")[0] == 404


# --- Engines ---------------------------------------------------------------------------------------------------------


def test_an_engine_is_held_and_released(operator):
    cast.pool(slug="relay")

    held = post(operator, f"{ENGINES}relay/hold/", why="lunch", minutes=30)
    until = Engine.objects.get().held_until
    released = post(operator, f"{ENGINES}relay/release/")

    assert (held[0], held[1]["held"], held[1]["hold_reason"]) == (200, True, "lunch")
    assert (until - timezone.now()).total_seconds() / 60 == pytest.approx(30, abs=0.5)
    assert (released[0], released[1]["held"], released[1]["held_until"]) == (200, False, None)
    assert list(EngineEvent.objects.values_list("by", flat=True)) == ["ada", "ada"]


def test_a_hold_or_a_release_that_is_not_possible_is_answered_with_409_and_its_reason(operator):
    cast.pool(slug="relay")

    nothing = operator.post(f"{ENGINES}relay/release/")
    hold(Engine.objects.get(), "grace", "supper")
    again = operator.post(f"{ENGINES}relay/hold/", {"why": "lunch"}, format="json")

    assert [(answer.status_code, detail(answer)) for answer in (nothing, again)] == [
        (409, "Engine Relay is not held: there is nothing to release."),
        (409, "Engine Relay is held (supper); release it first, to hold it in another way."),
    ]


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("runs/{run}/pause/", {"reason": "lunch"}, "reason"),
        ("runs/{run}/pause/", {"why": "x" * 401}, "why"),
        ("runs/{run}/retry-failed/", {"uncertain": "perhaps"}, "uncertain"),
        ("runs/{run}/retry-failed/", {"states": ["accepted"]}, "states"),
        ("engines/letters-pool/hold/", {}, "why"),
        ("engines/letters-pool/hold/", {"why": " "}, "why"),
        ("engines/letters-pool/hold/", {"why": "lunch", "minutes": 0}, "minutes"),
        ("engines/letters-pool/hold/", {"why": "lunch", "until": "noon"}, "until"),
        ("engines/letters-pool/release/", {"minutes": 5}, "minutes"),
    ],
)
def test_a_body_that_is_wrong_is_answered_with_400_and_names_the_field(operator, path, body, field):
    run = cast.initialized(cast.workflow())

    answer = operator.post("/api/v1/" + path.format(run=run.pk), body, format="json")

    assert (answer.status_code, list(errors(answer))) == (400, [field])
    assert cast.fresh(run).state == RunState.SENDING
    assert not EngineEvent.objects.exists()


def test_a_body_that_is_no_object_is_answered_with_400(operator):
    run = cast.initialized(cast.workflow())

    answers = [
        operator.post(url(run, "pause"), body, content_type="application/json").status_code
        for body in ("[1]", "{", '"why"')
    ]

    assert answers == [400, 400, 400]
    assert cast.fresh(run).state == RunState.SENDING


POSTS = ["runs/{run}/pause/", "runs/{run}/resume/", "runs/{run}/cancel/", "runs/{run}/retry-failed/"]
POSTS += ["deliveries/{dead}/replay/", "engines/letters-pool/hold/", "engines/letters-pool/release/"]


@pytest.mark.parametrize("path", POSTS)
def test_who_may_only_look_or_is_not_signed_in_changes_nothing(viewer, path):
    run = over("dead")
    path = "/api/v1/" + path.format(run=run.pk, dead=in_state(run, "dead")[0].pk)
    body = {"why": "lunch"}

    assert (post(viewer, path, **body)[0], post(APIClient(), path, **body)[0]) == (403, 401)

    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "dead": 1}
    assert not EngineEvent.objects.exists()


def test_the_permission_to_send_does_not_hold_engines_nor_the_other_way_round():
    run = over("dead")
    sender, engineer = client("sender", "send_workflow"), client("engineer", "change_engine")

    assert post(sender, f"{ENGINES}letters-pool/hold/", why="lunch")[0] == 403
    assert post(engineer, url(run, "retry-failed"))[0] == 403
    assert post(sender, url(run, "retry-failed"))[0] == 200
    assert post(engineer, f"{ENGINES}letters-pool/hold/", why="lunch")[0] == 200


@pytest.mark.parametrize("path", ["runs/", "runs/{run}/", "engines/", "engines/letters-pool/"])
def test_who_may_not_look_sees_nothing(path):
    run = over()
    path = "/api/v1/" + path.format(run=run.pk)

    assert [who.get(path).status_code for who in (client("outsider"), APIClient())] == [403, 401]


def test_a_request_from_another_site_is_refused():
    run = cast.initialized(cast.workflow())
    operator = client("ada", "view_run", "send_workflow", enforce_csrf_checks=True)

    status, body = post(operator, url(run, "pause"))

    assert (status, "CSRF" in body["detail"]) == (403, True)
    assert cast.fresh(run).state == RunState.SENDING


def test_what_is_not_offered_is_not_allowed(operator):
    run = over("dead")

    assert operator.delete(url(run)).status_code == 405
    assert operator.put(url(run), {"state": "sending"}, format="json").status_code == 405
    assert operator.get(url(run, "pause")).status_code == 405
