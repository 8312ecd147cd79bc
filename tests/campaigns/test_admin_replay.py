"""Dead letters in the admin: seen with their cause, sent again after a question, by nobody who may not send."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from campaigns.models import Run, RunState
from delivery import queue
from delivery.models import Delivery
from tests.campaigns import cast
from tests.campaigns.replaying import in_state, over
from tests.campaigns.test_admin import signed_in, staff, text_of
from tests.delivery.admin_pages import CONFIRMED

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]

DELIVERIES = "/admin/delivery/delivery/"
DEAD = f"{DELIVERIES}?state__exact=dead"


@pytest.fixture
def root() -> Client:
    return signed_in(User.objects.create(username="root", is_staff=True, is_superuser=True))


@pytest.fixture
def viewer() -> Client:
    """May see everything and start nothing."""
    return signed_in(staff("viewer", Permission.objects.exclude(codename="send_workflow")))


def ids_of(run: Run, *states: str) -> list[int]:
    return [delivery.pk for delivery in in_state(run, *states)]


def chosen(action: str, ids: list[int], **answers: object) -> dict[str, object]:
    """A selection in the list; with answers, what the question's page sends."""
    return {"action": action, "_selected_action": ids} | ({"confirmed": "1"} | answers if answers else {})


def retry_url(run: Run) -> str:
    return reverse("admin:campaigns_run_retry_failed", args=[run.pk])


def page_of(run: Run) -> str:
    return reverse("admin:campaigns_run_change", args=[run.pk])


# --- The list --------------------------------------------------------------------------------------------------------


def test_the_menu_leads_to_the_dead_letters_which_show_their_cause(root):
    over("dead", "rejected")

    assert f'href="{DEAD}"' in text_of(root.get("/admin/"))
    page = text_of(root.get(DEAD))
    assert "person-00001@example.test" in page
    assert "550 no" in page
    assert "Letters-Pool" in page
    assert "person-00002@example.test" not in page


def test_a_selection_is_asked_about_before_anything_happens(root):
    run = over("dead", "dead", "rejected")

    page = text_of(root.post(DELIVERIES, chosen("replay_selected", ids_of(run, "dead", "rejected"))))

    assert "Send these again?" in page
    assert "<b>2</b> dead letter" in page
    assert "<b>1</b> rejected" in page
    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "dead": 2, "rejected": 1}


def test_what_was_selected_goes_out_again_and_the_history_says_by_whom(root):
    run = over("dead", "dead", "rejected")
    ids = ids_of(run, "dead")

    response = root.post(DEAD, chosen("replay_selected", ids[:1], why="mended"), follow=True)

    assert f"Run {run.pk} of Letters: 1 done." in text_of(response)
    assert ids_of(run, "ready") == ids[:1]
    assert (run.events.last().by, run.events.last().why) == ("root", "replays 1 delivery: mended")


def test_uncertain_ones_go_out_again_only_when_the_box_is_ticked(root):
    run = over("uncertain", "dead")
    ids = ids_of(run, "uncertain", "dead")

    assert "Also the uncertain ones" in text_of(root.post(DELIVERIES, chosen("replay_selected", ids)))
    root.post(DELIVERIES, chosen("replay_selected", ids, why=""))
    without = queue.counts_by_state(run.batch_id)
    root.post(DELIVERIES, chosen("replay_selected", ids, why="", uncertain="on"))

    assert without == {"accepted": 2, "uncertain": 1, "ready": 1}
    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "ready": 2}


def test_what_got_through_is_not_sent_again(root):
    run = over("dead")

    response = root.post(DELIVERIES, chosen("replay_selected", ids_of(run, "accepted"), why=""), follow=True)

    assert "None of these is dead or rejected or expired or uncertain." in text_of(response)
    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "dead": 1}


def test_uncertain_ones_that_arrived_are_taken_as_accepted_with_a_reason(root):
    run = over("uncertain", "dead")
    ids = ids_of(run, "uncertain", "dead")

    refused = text_of(root.post(DELIVERIES, chosen("arrived", ids, why="")))
    root.post(DELIVERIES, chosen("arrived", ids, why="provider's log"))

    assert "This field is required." in refused
    assert cast.nonzero(cast.fresh(run).counts) == {"accepted": 3, "dead": 1}
    assert Delivery.objects.get(pk=ids[0]).words == "taken as accepted: root, provider's log"


def test_who_may_not_send_replays_nothing_and_is_not_offered_it(viewer):
    run = over("dead", "uncertain")
    ids = ids_of(run, "dead", "uncertain")

    assert "replay_selected" not in text_of(viewer.get(DEAD))
    viewer.post(DELIVERIES, chosen("replay_selected", ids, why="", uncertain="on"))
    viewer.post(DELIVERIES, chosen("arrived", ids, why="I say so"))

    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "dead": 1, "uncertain": 1}


# --- The run's page --------------------------------------------------------------------------------------------------


def test_the_page_of_a_run_with_failures_offers_to_retry_them_and_never_to_resume_it(root, viewer):
    run = over("dead")

    page = text_of(root.get(page_of(run)))

    assert retry_url(run) in page
    assert reverse("admin:campaigns_run_resume", args=[run.pk]) not in page
    assert retry_url(run) not in text_of(viewer.get(page_of(run)))
    assert retry_url(over(slug="clean")) not in text_of(root.get(page_of(Run.objects.first())))


def test_the_question_says_how_many_there_are_of_which(root):
    run = over("dead", "dead", "expired", "uncertain")

    page = text_of(root.get(retry_url(run)))

    assert "<b>2</b> dead letter" in page
    assert "<b>1</b> expired" in page
    assert "<b>1</b> uncertain" in page
    assert "Also the uncertain ones" in page


@pytest.mark.parametrize(
    ("answers", "again"), [({}, 2), ({"uncertain": "on"}, 3)], ids=["failed only", "uncertain ones too"]
)
def test_a_retry_sends_what_failed_again(root, answers, again):
    run = over("dead", "rejected", "uncertain")

    response = root.post(retry_url(run), CONFIRMED | {"why": "mended"} | answers, follow=True)

    assert "What failed goes out again." in text_of(response)
    assert queue.counts_by_state(run.batch_id)["ready"] == again
    assert cast.fresh(run).state == RunState.SENDING
    assert run.events.last().why == f"replays {again} deliveries: mended"


def test_a_retry_of_nothing_is_refused_with_its_reason(root):
    run = over("uncertain")

    response = root.post(retry_url(run), CONFIRMED | {"why": ""}, follow=True)

    assert "there are 1 uncertain, to be asked for by name" in text_of(response)
    assert cast.fresh(run).state == RunState.COMPLETED


def test_who_may_not_send_retries_nothing(viewer):
    run = over("dead")

    assert viewer.post(retry_url(run), CONFIRMED).status_code == 403
    assert Client().post(retry_url(run), CONFIRMED).status_code == 302

    assert queue.counts_by_state(run.batch_id) == {"accepted": 2, "dead": 1}
