"""Deliveries over the API: found without reading the whole table, read in full, and their mails rendered."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from campaigns import control
from campaigns.models import Run
from delivery import queue
from delivery.models import Attempt, Batch, Delivery, Engine, KeptMail, Lease, Message
from delivery.unsubscribe import token_for
from tests.campaigns import cast
from tests.campaigns.clients import client
from tests.campaigns.replaying import end_as, in_state, over
from tests.problems import detail, errors

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("output_dir")]

URL = "/api/v1/deliveries/"


@pytest.fixture
def viewer() -> APIClient:
    return client("viewer", "view_delivery")


def listed(who: APIClient, query: str = "") -> list[int]:
    answer = who.get(f"{URL}?{query}")
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def ids_of(run: Run) -> list[int]:
    """The newest first."""
    return list(Delivery.objects.filter(batch=run.batch_id).order_by("-pk").values_list("pk", flat=True))


# ---- lists ----


def test_the_newest_are_listed_first_and_every_page_follows_from_the_one_before(viewer):
    run = cast.initialized(cast.workflow(audience=cast.list_audience(cast.crowd(7))))
    seen, page = [], viewer.get(f"{URL}?page_size=3").json()
    while True:
        seen += [row["id"] for row in page["results"]]
        if page["next"] is None:
            break
        page = viewer.get(page["next"]).json()

    assert seen == ids_of(run)


def test_they_are_found_by_run_batch_state_address_engine_and_step(viewer):
    first, second = over("dead", "rejected"), over(slug="second")
    everything = [*ids_of(second), *ids_of(first)]
    dead, rejected = (each.pk for each in in_state(first, "dead", "rejected"))
    engine = Engine.objects.get(slug="letters-pool")

    assert listed(viewer) == everything
    assert listed(viewer, f"run={first.pk}") == listed(viewer, f"batch={first.batch_id}") == ids_of(first)
    assert listed(viewer, f"run={first.pk}&state=dead") == [dead]
    assert listed(viewer, f"run={first.pk}&state=dead&state=rejected") == [rejected, dead]
    assert listed(viewer, f"run={first.pk}&state=open") == []
    assert listed(viewer, f"run={first.pk}&engine=letters-pool") == listed(viewer, f"run={first.pk}&engine={engine.pk}")
    assert listed(viewer, f"run={second.pk}&engine=letters-pool") == []
    assert listed(viewer, f"run={first.pk}&step=1") == ids_of(first)
    assert listed(viewer, f"run={first.pk}&step=2") == listed(viewer, "run=999") == listed(viewer, "batch=999") == []
    assert listed(viewer, f"run={first.pk}&batch={second.batch_id}") == []
    assert listed(viewer, "address=PERSON-00001@example.test") == [ids_of(second)[-1], ids_of(first)[-1]]
    assert listed(viewer, "address=person-00001@example.test&state=dead") == [dead]
    assert listed(viewer, "address=nobody@example.test") == []


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("state=dead", "state", "This is of one run or batch, or of one address: name that, too."),
        ("engine=letters-pool", "engine", "This is of one run or batch"),
        ("step=1", "step", "This is of one run or batch: name that, too."),
        ("run=1&state=lost", "state", "lost"),
        ("run=1&step=0", "step", "1"),
        ("run=1&engine=nobody", "engine", "There is no engine 'nobody'"),
        ("run=letters", "run", "number"),
        ("run=99999999999999999999", "run", "9223372036854775807"),
        ("address=ada", "address", "Not an address: There is no @ in it."),
        ("adress=ada@example.test", "adress", "A list is not narrowed by this."),
        ("page_size=501", "page_size", "1 to 500"),
    ],
)
def test_what_would_read_the_whole_table_or_makes_no_sense_is_refused(query, field, words, viewer):
    over()

    answer = viewer.get(f"{URL}?{query}")

    assert words in errors(answer)[field][0]


@pytest.mark.parametrize(
    "query", ["", "run={run}", "run={run}&state=accepted&state=dead", "address=person-00001@example.test"]
)
def test_a_list_of_many_asks_no_more_than_one_of_few(query, viewer):
    counts = []
    for number, size in enumerate((1, 25)):
        run = cast.ended(cast.workflow(f"w{number}", audience=cast.list_audience(cast.crowd(size), slug=f"a{number}")))
        end_as(run, "dead")
        viewer.get(URL)
        with CaptureQueriesContext(
            connection,
        ) as asked:
            assert listed(viewer, query.format(run=run.pk))
        counts.append(len(asked))

    assert counts[0] == counts[1] <= 9


def test_a_list_reads_by_the_primary_key_and_no_row_of_the_datas(viewer):
    over()
    with CaptureQueriesContext(connection) as asked:
        listed(viewer, "page_size=2")
    (statement,) = [each["sql"] for each in asked if 'FROM "delivery_delivery"' in each["sql"]]

    assert '"delivery_delivery"."data"' not in statement
    assert "JOIN" not in statement
    assert statement.endswith('ORDER BY "delivery_delivery"."id" DESC LIMIT 3')


def test_what_a_worker_has_is_found_and_nothing_is_open_in_a_batch_that_is_done(viewer):
    run = cast.initialized(cast.workflow())
    lease = Lease.objects.create(owner="w", expires_at="2126-01-01T00:00:00Z")
    held = Delivery.objects.filter(batch=run.batch_id).first()
    Delivery.objects.filter(pk=held.pk).update(state="sending", lease=lease)

    assert listed(viewer, f"run={run.pk}&state=sending&state=leased") == [held.pk]
    assert listed(viewer, f"run={run.pk}&state=open") == ids_of(run)
    Batch.objects.update(state="done")
    assert listed(viewer, f"run={run.pk}&state=open") == []


def test_engines_and_messages_that_are_gone_break_no_list(viewer):
    run = over("dead")
    Engine.objects.filter(slug="letters-pool").update(slug="was")
    Delivery.objects.filter(batch=run.batch_id).update(engine=10**9, message=10**9)

    rows = viewer.get(f"{URL}?run={run.pk}").json()["results"]

    assert {(row["engine_slug"], row["step"]) for row in rows} == {(None, None)}
    assert viewer.get(f"{URL}{rows[0]['id']}/").status_code == 200
    assert viewer.get(f"{URL}{rows[0]['id']}/mail/").status_code == 404


# ---- one of them ----


def test_one_is_read_in_full(viewer):
    run = over("dead")
    (dead,) = in_state(run, "dead")
    engine = Engine.objects.get(slug="letters-pool")
    Attempt.objects.create(
        delivery=dead,
        engine=engine,
        kind="transient",
        code="451",
        words="later",
        seconds=0.5,
        at="2026-01-02T03:04:05Z",
    )
    queue.record_events([queue.Heard(dead.pk, "opened", dead.settled_at, "a pixel")])

    shown = viewer.get(f"{URL}{dead.pk}/").json()

    assert (shown["run"], shown["batch"], shown["step"], shown["state"]) == (run.pk, run.batch_id, 1, "dead")
    assert (shown["code"], shown["words"], shown["attempts"], shown["deadline"]) == ("550", "no", 5, None)
    assert (shown["data"]["city"], shown["waits"], shown["more"]) == ("Leeds", "", [])
    assert [(each["code"], each["engine"], each["seconds"]) for each in shown["failures"]] == [("451", engine.pk, 0.5)]
    assert [(each["kind"], each["source"]) for each in shown["events"]] == [("opened", "a pixel")]
    assert shown["of_batch"]["reference"] == run.batch.reference
    assert (shown["composition"], shown["depends_on"], shown["other_steps"]) == (None, [], [])


def test_one_that_waits_says_for_what_and_what_else_its_recipient_gets(viewer):
    workflow = cast.workflow()
    cast.add_step(workflow, 2, after="1")
    run = cast.initialized(workflow)
    control.pause(run, "ada", "lunch")
    first = Delivery.objects.filter(batch=run.batch_id).order_by("pk").first()

    shown = viewer.get(f"{URL}{first.pk}/").json()

    assert shown["waits"].startswith("for its batch to be resumed (")
    assert viewer.get(f"{URL}{10**12}/").status_code == 404


def test_reading_one_asks_the_same_however_much_there_is_to_say(viewer):
    run = over("dead")
    (dead,) = in_state(run, "dead")
    counts = []
    for rows in (1, 60):
        Attempt.objects.bulk_create(
            Attempt(
                delivery=dead,
                kind="transient",
                seconds=0,
                at=f"2026-01-{rows:02}T03:04:{n:02}Z" if rows < 32 else f"2026-02-01T03:04:{n:02}Z",
            )
            for n in range(rows)
        )
        viewer.get(URL)
        with CaptureQueriesContext(connection) as asked:
            shown = viewer.get(f"{URL}{dead.pk}/").json()
        counts.append(len(asked))

    assert counts[0] == counts[1]
    assert (len(shown["failures"]), shown["more"]) == (50, ["failures"])


# ---- its mail ----


def test_the_mail_is_the_one_that_went_out_without_the_link_by_which_its_recipient_unsubscribes(viewer, settings):
    settings.OUTREACH = settings.OUTREACH | {"PUBLIC_URL": "https://mail.sender.example"}
    version = cast.template(text="Hello {{ name }}\n{{ unsubscribe_url }}\n", html="<p>{{ unsubscribe_url }}</p>")
    run = cast.ended(cast.workflow(version=version))
    delivery = Delivery.objects.filter(batch=run.batch_id, address="ada@example.test").get()
    kept = bytes(KeptMail.objects.get(recipient="ada@example.test").raw).decode()

    answer = viewer.get(f"{URL}{delivery.pk}/mail/")

    mail = answer.json()
    assert (mail["subject"], mail["recipient"]) == ("News for Ada Lovelace", "Ada Lovelace <ada@example.test>")
    assert mail["text"] == "Hello Ada Lovelace\nhttps://mail.sender.example/u/***\n"
    assert mail["headers"]["Message-ID"] in kept
    assert mail["headers"]["List-Unsubscribe"] == "<https://mail.sender.example/u/***>"
    assert token_for(delivery.pk) not in answer.content.decode()


def test_a_mail_that_cannot_be_rendered_is_answered_with_409_and_why(viewer):
    run = over("dead")
    (dead,) = in_state(run, "dead")
    Message.objects.filter(batch=run.batch_id).update(text="{{ nothing.of.it }}")

    answer = viewer.get(f"{URL}{dead.pk}/mail/")

    assert (answer.status_code, "nothing" in detail(answer)) == (409, True)


# ---- who may ----


@pytest.mark.parametrize("path", ["", "{pk}/", "{pk}/mail/"])
def test_who_may_not_look_at_deliveries_sees_none(path):
    run = over("dead")
    url = URL + path.format(pk=in_state(run, "dead")[0].pk)
    outsider = client("outsider", "view_run", "change_delivery")

    assert outsider.get(url).status_code == 403
    assert APIClient().get(url).status_code == 401


def test_telling_an_event_and_sending_again_are_two_rights():
    run = over("dead")
    (dead,) = in_state(run, "dead")
    teller, sender = client("teller", "change_delivery"), client("sender", "send_workflow")

    def post(who: APIClient, deed: str, **body: object) -> int:
        return who.post(f"{URL}{dead.pk}/{deed}/", body, format="json").status_code

    assert [post(who, "events", kind="opened") for who in (sender, teller)] == [403, 201]
    assert [post(who, "replay") for who in (teller, sender)] == [403, 200]
