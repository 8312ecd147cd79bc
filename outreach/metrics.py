"""`/metrics`, for Prometheus: what all workers of all hosts have counted, and how queue, engines and runs stand now.

Every web process gives the same answer, so one of them is scraped, through whatever is in front of them. What is
counted stands in the table `Counter`; what stands now is read when it is asked for, by queries that do not grow with
the number of deliveries.
"""

import ipaddress
import json
import logging
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from django.db import DatabaseError
from django.db.models import Count, Sum
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_q.brokers import get_broker
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from campaigns.models import SILENT_AFTER, Cluster, Run, RunState
from delivery import metrics
from delivery.core.breaker import State
from delivery.core.condition import Condition
from delivery.models import Counter, Engine
from delivery.queue.depth import MOST_WAITING, depth, with_ready
from delivery.queue.dialect import database_now
from delivery.shared import SharedAway, shared
from outreach.conf import conf

logger = logging.getLogger(__name__)

PREFIX = "outreach_"
ENGINE = ("engine",)
NO_ENGINE = ""
# Set by whatever forwards a request: then the address that the request comes from is a proxy's.
FORWARDED = ("X-Forwarded-For", "X-Real-Ip", "Forwarded")

HELP = {
    metrics.SETTLED: "Deliveries that came to an end state. Without an engine: those that ended before a hand-over. A "
    "delivery that is replayed or whose late answer arrives ends twice; exact counts are in each run.",
    metrics.ATTEMPTS: "Hand-overs to an engine, by what came of them.",
    metrics.ATTEMPT_SECONDS: "Seconds from the hand-over to the engine's answer, once for each attempt: those that "
    "share a call have the same.",
    metrics.TOKEN_WAIT: "Seconds that lanes and their senders waited for an engine's limits, each for itself.",
    metrics.PUMP_SECONDS: "Seconds of all pumps together: busy while a delivery is in hand. Utilisation is the share "
    "of busy in both.",
    metrics.PUMP_SLICES: "Stretches of work that pumps began.",
}
UNFINISHED = (RunState.QUEUED, RunState.INITIALIZING, RunState.SENDING, RunState.PAUSED)

Value = tuple[Mapping[str, object], float]


class Outreach(Collector):
    """Everything there is to say, read when it is asked for."""

    def collect(self) -> Iterator[Metric]:
        engines = list(Engine.objects.order_by("pk"))
        yield from _counted({engine.pk: engine.slug for engine in engines})
        yield from _engines(engines)
        yield from _queue()
        yield from _runs()
        yield from _clusters()


# ---- what workers have counted ----


def _counted(slugs: Mapping[int, str]) -> Iterator[Metric]:
    values: dict[str, list[Value]] = defaultdict(list)
    sums = Counter.objects.values("name", "labels").annotate(total=Sum("value")).order_by("name", "labels")
    for row in sums:
        labels = json.loads(row["labels"])
        if "engine" in labels:
            labels["engine"] = _slug(labels["engine"], slugs)
        values[row["name"]].append((labels, row["total"]))
    for name, names in (
        (metrics.SETTLED, ("state", "engine")),
        (metrics.ATTEMPTS, ("kind", "engine")),
        (metrics.TOKEN_WAIT, ("engine",)),
        (metrics.PUMP_SECONDS, ("state",)),
        (metrics.PUMP_SLICES, ()),
    ):
        yield _filled(CounterMetricFamily(PREFIX + name, HELP[name], labels=names), values[name], names)
    yield _attempt_seconds(values)


def _slug(engine_id: int | None, slugs: Mapping[int, str]) -> str:
    return NO_ENGINE if engine_id is None else slugs.get(engine_id, f"deleted-{engine_id}")


def _attempt_seconds(values: Mapping[str, list[Value]]) -> Metric:
    name = metrics.ATTEMPT_SECONDS
    family = HistogramMetricFamily(PREFIX + name, HELP[name], labels=("engine",))
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for labels, value in values[name + metrics.BUCKET]:
        found[labels["engine"]][str(labels["le"])] = value
    sums = {labels["engine"]: value for labels, value in values[name + metrics.SUM]}
    for engine, counts in found.items():
        so_far, buckets = 0.0, []
        for bound in (*map(str, metrics.BOUNDS), "+Inf"):
            so_far += counts.get(bound, 0)
            buckets.append((bound, so_far))
        family.add_metric([engine], buckets, sums.get(engine, 0))
    return family


# ---- what stands now ----


def _engines(engines: list[Engine]) -> Iterator[Metric]:
    now = timezone.now()
    yield _gauge(
        "engine_enabled", "1: the engine is set up to be used.", ((_of(e), e.enabled) for e in engines), ENGINE
    )
    held = ((_of(engine), engine.is_held(now)) for engine in engines)
    yield _gauge("engine_held", "1 while a person has stopped the engine.", held, ENGINE)
    conditions = _conditions(engines)
    up = [({}, conditions is not None)]
    yield _gauge("shared_state_up", "1: the store of what workers share about engines answers.", up)
    known = [(engine, conditions[engine.pk]) for engine in engines] if conditions else []
    circuits = (
        ({**_of(engine), "state": state.value}, condition.breaker.state is state)
        for engine, condition in known
        for state in State
    )
    yield _gauge("engine_circuit", "1 for the state in which the engine's circuit is.", circuits, (*ENGINE, "state"))
    paces = ((_of(engine), condition.pace) for engine, condition in known)
    yield _gauge("engine_pace", "The share of its limits at which the engine may go now, from 0 to 1.", paces, ENGINE)
    paused = (
        (_of(engine), condition.paused_until is not None and condition.paused_until > now)
        for engine, condition in known
    )
    yield _gauge("engine_paused", "1 while the engine has asked to be left alone.", paused, ENGINE)


def _conditions(engines: list[Engine]) -> dict[int, Condition] | None:
    """How the engines stand; None when the store does not answer."""
    try:
        return shared().conditions([engine.pk for engine in engines])
    except SharedAway as error:
        logger.warning("How the engines stand is not known: %s", error)
        return None


def _of(engine: Engine) -> dict[str, object]:
    return {"engine": engine.slug}


def _queue() -> Iterator[Metric]:
    now = depth()
    counts = (({"state": state}, getattr(now, state)) for state in ("ready", "waiting", "leased", "sending"))
    yield _gauge(
        "queue_deliveries",
        "Deliveries without an end, by state, over all batches that were filled. Waiting is counted up to "
        f"{MOST_WAITING:,}; what is beyond counts as ready.",
        counts,
        ("state",),
    )
    yield _gauge("queue_held_deliveries", "Those among them that belong to a held batch.", [({}, now.held)])
    yield _gauge(
        "queue_oldest_ready_seconds",
        "At most so long the oldest ready delivery has been ready: since its run began to send, or since its batch was "
        "made. One that is ready for another try is younger than this says. 0 when none is ready.",
        [({}, _oldest_ready())],
    )


def _oldest_ready() -> float:
    since = with_ready()
    if not since:
        return 0.0
    begun = dict(Run.objects.filter(batch__in=since, sending_at__isnull=False).values_list("batch", "sending_at"))
    oldest = min(begun.get(batch, made) for batch, made in since.items())
    return max(0.0, (database_now() - oldest).total_seconds())


def _runs() -> Iterator[Metric]:
    found = dict(Run.objects.filter(state__in=UNFINISHED).order_by().values_list("state").annotate(Count("id")))
    counts = (({"state": state.value}, found.get(state, 0)) for state in UNFINISHED)
    yield _gauge("runs", "Runs that have not ended, by state.", counts, ("state",))


def _clusters() -> Iterator[Metric]:
    alive = Cluster.objects.alive(database_now())
    found = alive.aggregate(clusters=Count("id"), workers=Sum("workers"))
    seconds = f"{SILENT_AFTER.total_seconds():.0f} seconds"
    yield _gauge(
        "clusters", f"Worker clusters that gave a sign of life in the last {seconds}.", [({}, found["clusters"])]
    )
    yield _gauge("workers", "The worker processes of those clusters.", [({}, found["workers"] or 0)])
    tasks = _tasks()
    yield _gauge("broker_up", "1 when the broker of the clusters answers.", [({}, tasks is not None)])
    yield _gauge("broker_tasks", "Tasks that wait at the broker.", [({}, tasks)] if tasks is not None else [])


def _tasks() -> int | None:
    try:
        return get_broker().queue_size()
    except DatabaseError:
        raise
    except Exception as error:  # each broker's client has its own
        logger.warning("The broker does not answer: %s: %s", type(error).__name__, error)
        return None


def _gauge(name: str, words: str, values: Iterable[Value], names: tuple[str, ...] = ()) -> Metric:
    return _filled(GaugeMetricFamily(PREFIX + name, words, labels=names), values, names)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Iterable[Value], names: tuple[str, ...]) -> Metric:
    for labels, value in values:
        family.add_metric([str(labels[name]) for name in names], float(value))
    return family


# ---- the page ----

registry = CollectorRegistry()
registry.register(Outreach())


@require_safe
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """The metrics in Prometheus' text format; 401 or 403 with a sentence for who may not read them, 503 while the
    database is away."""
    refused = _refusal(request)
    if refused:
        return refused
    try:
        text = generate_latest(registry)
    except DatabaseError as error:
        logger.warning("No metrics: %s", str(error).strip())
        return HttpResponse("The database does not answer.\n", "text/plain; charset=utf-8", 503)
    return HttpResponse(text, CONTENT_TYPE_PLAIN_0_0_4)


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Why this request may not read the metrics; None when it may."""
    token = conf().metrics_token
    if token:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), token.encode()):
            return None
        words = "Send the token of OUTREACH_METRICS_TOKEN: Authorization: Bearer …\n"
        return HttpResponse(words, "text/plain; charset=utf-8", 401, headers={"WWW-Authenticate": "Bearer"})
    if _is_here(request):
        return None
    words = (
        "Without a token the metrics are for this host alone. Set OUTREACH_METRICS_TOKEN, and let Prometheus send it "
        "as a bearer token.\n"
    )
    return HttpResponse(words, "text/plain; charset=utf-8", 403)


def _is_here(request: HttpRequest) -> bool:
    """Whether the request comes from this host and nobody passed it on."""
    if any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:  # a Unix socket: whoever is behind it has no address
        return False
