"""The table of requests for runs in the admin."""

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from campaigns.launch import Asked, launch
from campaigns.models import Mode, Outcome, Trigger
from tests.campaigns import cast

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]

REQUESTS = "/admin/campaigns/runrequest/"


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    return client


def test_it_says_who_asked_how_and_what_came_of_it(operator):
    letters = cast.workflow()
    cast.ended(letters)
    launch(letters, trigger=Trigger.ADMIN, by="root")
    Asked(Mode.SYNC, recipients=3).record(letters, None, "shop", Outcome.REFUSED, "pool: There is no pool 'x'.")

    page = operator.get(REQUESTS).content.decode()

    for said in ("command line", "admin", "API, waiting", "refused", "There is no pool", "completed", "queued", "shop"):
        assert said in page


def test_an_empty_table_says_what_will_be_in_it(operator):
    assert "Whoever asks for a run" in operator.get(REQUESTS).content.decode()


def test_a_page_takes_as_many_queries_for_forty_requests_as_for_two(operator):
    letters = cast.workflow()

    def queries(count: int) -> int:
        for _ in range(count):
            launch(letters, trigger=Trigger.ADMIN, by="root")
        with CaptureQueriesContext(connection) as asked:
            assert operator.get(REQUESTS).status_code == 200
        return len(asked)

    assert queries(2) == queries(38)
