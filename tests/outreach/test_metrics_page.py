"""/metrics: a page that Prometheus can read, whose numbers are those of the runs, for those who may read it."""

import json
import subprocess
import sys
from datetime import timedelta

import pytest
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from campaigns import control
from campaigns.models import Cluster, Run, RunState, Trigger
from delivery import metrics
from delivery.core.envelope import Kind, Outcome
from delivery.models import Batch, Counter, Delivery, Engine, EngineState
from tests.campaigns import cast
from tests.delivery.pumping import ACCEPTED, TROUBLE, FakeEngine, pool_of, pumped
from tests.sinks import ROOT

TOKEN = "prometheus-may-read-this"

pytestmark = pytest.mark.usefixtures("output_dir")


@pytest.fixture
def scraped(client):
    """The samples of the page, by name and labels, without the prefix that all have."""

    def scrape() -> dict[tuple[str, ...], float]:
        response = client.get("/metrics")
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        samples = {}
        for family in text_string_to_metric_families(response.content.decode()):
            assert family.name.startswith("outreach_")
            assert family.documentation
            for sample in family.samples:
                key = (sample.name.removeprefix("outreach_"), *(v for _, v in sorted(sample.labels.items())))
                assert key not in samples
                samples[key] = sample.value
        return samples

    return scrape


# --- The numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_numbers_are_those_of_the_run(scraped):
    metrics.meter().flush()
    Counter.objects.all().delete()
    pool, engines = pool_of(
        FakeEngine(lambda address, time: TROUBLE if time == 1 else Outcome(Kind.RECIPIENT, "550", "no")
                   if address.startswith("ada") else ACCEPTED)
    )  # fmt: skip
    slug = pool.engines.get().slug
    people = [*cast.crowd(20), cast.ADA, ("nowhere@example.test", "Nobody", {})]
    workflow = cast.workflow(audience=cast.list_audience(people), through=pool, on_render_error="skip")
    run = cast.initialized(workflow)

    pumped(engines)

    run = cast.fresh(run)
    samples = scraped()
    assert cast.nonzero(run.counts) == {"accepted": 20, "rejected": 1, "skipped": 1}
    assert {key[1:]: n for key, n in samples.items() if key[0] == "deliveries_settled_total"} == {
        (slug, "accepted"): 20,
        (slug, "rejected"): 1,
        ("", "skipped"): 1,
    }
    assert {key[1:]: n for key, n in samples.items() if key[0] == "attempts_total"} == {
        (slug, "accepted"): 20,
        (slug, "recipient"): 1,
        (slug, "transient"): 21,
    }
    buckets = [n for key, n in samples.items() if key[0] == "attempt_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert samples["attempt_seconds_count", slug] == samples["attempt_seconds_bucket", slug, "+Inf"] == 42
    assert 0 < samples["attempt_seconds_sum", slug] < 42
    assert samples["pump_slices_total",] == 1
    assert samples["pump_seconds_total", "busy"] > 0


@pytest.mark.django_db(transaction=True)
def test_what_several_processes_count_adds_up(scraped, process_environment):
    count = (
        "import django; django.setup()\n"
        "from delivery.metrics import ATTEMPTS, meter\n"
        "for _ in range(50):\n"
        "    meter().count(ATTEMPTS, 2, engine=1, kind='accepted')\n"
        "    meter().flush()\n"
    )

    processes = [subprocess.Popen([sys.executable, "-c", count], cwd=ROOT, env=process_environment) for _ in range(3)]

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert scraped()["attempts_total", "deleted-1", "accepted"] == 300


@pytest.mark.django_db(transaction=True)
def test_two_runs_in_two_processes_are_counted_together(scraped, manage):
    for slug in ("first", "second"):
        cast.workflow(slug, through=cast.pool(slug=f"{slug}-pool"))

    ended = [json.loads(manage("run_workflow", slug, "--json").stdout)["state"] for slug in ("first", "second")]

    samples = scraped()
    assert ended == ["completed", "completed"]
    assert {key[1:]: n for key, n in samples.items() if key[0] == "deliveries_settled_total"} == {
        ("first-pool", "accepted"): 3,
        ("second-pool", "accepted"): 3,
    }
    assert samples["pump_slices_total",] == 2


@pytest.mark.django_db
def test_an_engine_that_was_renamed_keeps_its_series_and_one_that_was_deleted_too(scraped):
    engine = Engine.objects.create(name="Old", slug="old", kind="sandbox")
    metrics.add({(metrics.ATTEMPTS, (("engine", engine.pk), ("kind", "accepted"))): 7})

    Engine.objects.update(slug="new")
    renamed = scraped()
    Engine.objects.all().delete()
    deleted = scraped()

    assert renamed["attempts_total", "new", "accepted"] == 7
    assert deleted["attempts_total", f"deleted-{engine.pk}", "accepted"] == 7


@pytest.mark.django_db
def test_how_engines_stand_is_read_when_it_is_asked_for(scraped):
    now = timezone.now()
    calm, held, open_one = (Engine.objects.create(name=n, slug=n, kind="sandbox") for n in ("calm", "held", "open"))
    Engine.objects.filter(pk=held.pk).update(held=True, enabled=False)
    EngineState.objects.create(engine=open_one, circuit="open", pace=0.25, paused_until=now + timedelta(minutes=1))

    samples = scraped()

    assert {key[1:]: n for key, n in samples.items() if key[0] == "engine_circuit" and n} == {
        ("calm", "closed"): 1,
        ("held", "closed"): 1,
        ("open", "open"): 1,
    }
    assert {key: samples[key, "held"] for key in ("engine_enabled", "engine_held")} == {
        "engine_enabled": 0,
        "engine_held": 1,
    }
    assert [samples["engine_pace", engine.slug] for engine in (calm, open_one)] == [1, 0.25]
    assert [samples["engine_paused", engine.slug] for engine in (calm, open_one)] == [0, 1]
    assert samples["shared_state_up",] == 1


@pytest.mark.django_db
def test_a_store_of_shared_state_that_is_away_is_said_and_the_rest_is_there(scraped, outreach):
    Engine.objects.create(name="calm", slug="calm", kind="sandbox")
    outreach(REDIS_URL="redis://127.0.0.1:1/0")

    samples = scraped()

    assert samples["shared_state_up",] == 0
    assert not any(key[0] == "engine_circuit" for key in samples)
    assert samples["engine_enabled", "calm"] == 1


@pytest.mark.django_db
def test_the_queue_and_the_runs_are_counted_as_they_are_now(scraped):
    waiting = cast.initialized(cast.workflow("going"))
    paused = cast.initialized(cast.workflow("paused"))
    control.pause(paused, "ada")
    cast.queued(cast.workflow("queued"))
    control.cancel(cast.queued(cast.workflow("over")), "ada")
    first = Delivery.objects.filter(batch=waiting.batch_id).order_by("pk").first()
    Delivery.objects.filter(pk=first.pk).update(state="waiting", not_before=timezone.now())

    samples = scraped()

    assert {state: samples["queue_deliveries", state] for state in ("ready", "waiting", "leased", "sending")} == {
        "ready": 5,
        "waiting": 1,
        "leased": 0,
        "sending": 0,
    }
    assert samples["queue_held_deliveries",] == 3
    assert {state: samples["runs", state] for state in ("queued", "initializing", "sending", "paused")} == {
        "queued": 1,
        "initializing": 0,
        "sending": 1,
        "paused": 1,
    }


@pytest.mark.django_db
def test_the_oldest_ready_delivery_is_as_old_as_the_sending_of_its_run(scraped):
    run = cast.initialized(cast.workflow())
    Run.objects.update(sending_at=timezone.now() - timedelta(seconds=100))
    Batch.objects.update(created_at=timezone.now() - timedelta(seconds=500))
    while_ready = scraped()["queue_oldest_ready_seconds",]
    control.pause(cast.fresh(run), "ada")
    while_paused = scraped()["queue_oldest_ready_seconds",]

    assert 100 <= while_ready < 130
    assert while_paused == 0


@pytest.mark.django_db
def test_clusters_that_were_seen_lately_are_counted_with_their_workers(scraped):
    now = timezone.now()
    for name, seconds in (("a", 0), ("b", 20), ("gone", 40)):
        Cluster.objects.create(
            owner=name, host=name, workers=3, started_at=now, beat_at=now - timedelta(seconds=seconds)
        )

    samples = scraped()

    assert (samples["clusters",], samples["workers",]) == (2, 6)


@pytest.mark.django_db(transaction=True)
def test_tasks_at_the_broker_are_counted(scraped):
    before = scraped()

    cast.launch(cast.workflow(), trigger=Trigger.API)

    after = scraped()
    assert (before["broker_up",], before["broker_tasks",], after["broker_tasks",]) == (1, 0, 1)
    assert Run.objects.get().state == RunState.QUEUED


@pytest.mark.django_db
def test_a_page_needs_no_more_questions_for_more_deliveries(client, django_assert_max_num_queries):
    cast.initialized(cast.workflow(audience=cast.list_audience(cast.crowd(300))))

    with django_assert_max_num_queries(25):
        client.get("/metrics")


# --- Who may read it -------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1"])
def test_without_a_token_this_host_may_read_it(client, address):
    assert client.get("/metrics", REMOTE_ADDR=address).status_code == 200


@pytest.mark.parametrize(
    "request_of",
    [
        {"REMOTE_ADDR": "192.0.2.7"},
        {"REMOTE_ADDR": ""},  # a Unix socket
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_REAL_IP": "192.0.2.7"},
        {"REMOTE_ADDR": "127.0.0.1", "HTTP_FORWARDED": "for=192.0.2.7"},
        {"REMOTE_ADDR": "192.0.2.7", "HTTP_AUTHORIZATION": "Bearer "},
    ],
)
def test_without_a_token_nobody_else_may_and_the_answer_says_what_to_set(client, request_of):
    response = client.get("/metrics", **request_of)

    assert response.status_code == 403
    assert "Set OUTREACH_METRICS_TOKEN" in response.content.decode()
    assert "outreach_" not in response.content.decode()


@pytest.mark.django_db
def test_whoever_has_the_token_may_read_it_from_anywhere(client, outreach):
    outreach(METRICS_TOKEN=TOKEN)

    far = {"REMOTE_ADDR": "192.0.2.7", "HTTP_X_FORWARDED_FOR": "198.51.100.1"}
    response = client.get("/metrics", HTTP_AUTHORIZATION=f"Bearer {TOKEN}", **far)

    assert response.status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer tökén"]
)
def test_with_a_token_it_takes_the_token_on_this_host_too(client, outreach, header):
    outreach(METRICS_TOKEN=TOKEN)

    response = client.get("/metrics", REMOTE_ADDR="127.0.0.1", HTTP_AUTHORIZATION=header)

    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert TOKEN not in response.content.decode()


def test_it_can_only_be_read(client):
    assert client.post("/metrics").status_code == 405
