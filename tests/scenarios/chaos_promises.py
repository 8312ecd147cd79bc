"""The promises of the sender (design §4), asked of a world that chaos was made in. Each is a function that returns what
broke it, in words; nothing returned, nothing broken."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tests.scenarios.chaos import BURST, CONNECTIONS, HOLD, IN_FLIGHT, LIMITED, RATE, Plan, World
from tests.sinks import Received

SECOND = 1_000_000_000
MARKED_AHEAD = 256  # what a worker may mark of one engine beyond what its connections carry
SETTLED = 300_000_000  # nanoseconds that a mail on its way takes at most, when nothing is wrong
Breaches = Iterator[str]


@dataclass(frozen=True)
class Delivery:
    id: int
    address: str
    state: str
    resends: int
    doubts: int  # how often it was not known what became of it


@dataclass(frozen=True)
class RunStory:
    """A run at its end, as everybody tells it."""

    plan: Plan
    state: str
    counts: dict[str, int]
    problems: dict[str, int]
    total: int
    log: dict
    deliveries: list[Delivery]
    tally: dict[str, int]


class Evidence:
    """What rows, logs and sinks say, read once when all is over."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.arrivals: dict[str, list[Received]] = defaultdict(list)
        for mail in world.received():
            for recipient in mail.recipients:
                self.arrivals[recipient].append(mail)
        self.runs = [self._run(slug, number) for slug, number in world.runs.items()]

    def _run(self, slug: str, number: int) -> RunStory:
        rows = self.world.rows
        ((state, counts, problems, log_path, batch, total),) = rows.read(
            "SELECT r.state, r.counts, r.problem_counts, r.log_path, coalesce(r.batch_id, 0), coalesce(b.total, 0) "
            f"FROM campaigns_run r LEFT JOIN delivery_batch b ON b.id = r.batch_id WHERE r.id = {number}"
        )
        deliveries = rows.read(
            "SELECT d.id, d.address, d.state, d.resends, (SELECT count(*) FROM delivery_attempt a "
            "WHERE a.delivery_id = d.id AND a.kind = 'unknown') "
            f"FROM delivery_delivery d WHERE d.batch_id = {batch} ORDER BY d.id"
        )
        tally = rows.read(f"SELECT state, sum(count) FROM delivery_tally WHERE batch_id = {batch} GROUP BY state")
        with open(log_path) as file:
            log = json.load(file)
        return RunStory(
            self.world.plans[slug],
            state,
            counts,
            problems,
            total,
            log,
            [Delivery(*row) for row in deliveries],
            {state: int(n) for state, n in tally if n},
        )

    @cached_property
    def left_open(self) -> list[tuple]:
        return self.world.rows.read(
            "SELECT state, count(*) FROM delivery_delivery "
            "WHERE state IN ('waiting', 'ready', 'leased', 'sending') OR lease_id IS NOT NULL GROUP BY state"
        )


def everybody_is_accounted_for(evidence: Evidence) -> Breaches:
    for run in evidence.runs:
        plan, told = run.plan, {state: n for state, n in run.counts.items() if n}
        ends = Counter(delivery.state for delivery in run.deliveries)
        addresses = {delivery.address for delivery in run.deliveries}
        if not told == ends == run.tally or sum(told.values()) != run.total:
            yield f"{plan.slug}: {told} by the run, {dict(ends)} by row, {run.tally} by tally, {run.total} in all"
        if run.state == "completed" and not len(addresses) == len(run.deliveries) == plan.people:
            yield f"{plan.slug}: {len(run.deliveries)} deliveries for {len(addresses)} of {plan.people} people"
        doubles = {"duplicate": plan.people * (plan.repeats - 1)} if plan.repeats > 1 else {}
        if run.state == "completed" and run.problems != doubles:
            yield f"{plan.slug}: problems {run.problems}, and there were {doubles}"


def the_execution_log_tells_the_same_story(evidence: Evidence) -> Breaches:
    for run in evidence.runs:
        logged = [(r["address"], r["state"], r["resends"]) for r in run.log["recipients"]]
        if logged != [(d.address, d.state, d.resends) for d in run.deliveries]:
            yield f"{run.plan.slug}: the log's recipients are not those of the rows"
        if (run.log["state"], run.log["counts"], run.log["total"]) != (run.state, run.counts, run.total):
            yield f"{run.plan.slug}: the log says {run.log['state']} {run.log['counts']}"


def nothing_is_left_in_anybodys_hands(evidence: Evidence) -> Breaches:
    if evidence.left_open:
        yield f"not ended, or still somebody's: {evidence.left_open}"
    if leases := evidence.world.rows.read("SELECT id, owner FROM delivery_lease"):
        yield f"leases are left: {leases}"


def every_run_ends_as_it_should(evidence: Evidence) -> Breaches:
    for run in evidence.runs:
        ends = {delivery.state for delivery in run.deliveries}
        allowed = {"accepted"} | ({"uncertain"} if run.plan.policy == HOLD else set())
        if run.state == "cancelled" and run.plan.slug == "doomed":
            allowed |= {"cancelled"}
        elif run.state != "completed":
            yield f"{run.plan.slug} is {run.state}"
        if not ends <= allowed:
            yield f"{run.plan.slug}: {ends - allowed} is no end that anything here leads to"


def nothing_is_lost_and_nothing_doubled_in_silence(evidence: Evidence) -> Breaches:
    for run in evidence.runs:
        for delivery in run.deliveries:
            times = len(evidence.arrivals[delivery.address])
            if delivery.state == "accepted" and not times:
                yield f"{delivery.address} is accepted, and no sink has it"
            if times and delivery.state not in ("accepted", "uncertain"):
                yield f"{delivery.address} is {delivery.state}, and a sink has it"
            if times > 1 and run.plan.policy == HOLD:
                yield f"{delivery.address} was taken {times} times, and the policy is to hold"
            if times > 1 + min(delivery.doubts, delivery.resends):
                yield f"{delivery.address} was taken {times} times: {delivery.doubts} doubts, {delivery.resends} resent"


def a_double_bears_the_same_message_id(evidence: Evidence) -> Breaches:
    for address, mails in evidence.arrivals.items():
        if len({mail.message_id for mail in mails}) > 1:
            yield f"{address} got {[mail.message_id for mail in mails]}"


def in_doubt_is_only_what_was_in_flight(evidence: Evidence) -> Breaches:
    in_doubt = 0
    for run in evidence.runs:
        in_doubt += sum(delivery.doubts for delivery in run.deliveries)
        for delivery in run.deliveries:
            if delivery.state == "uncertain" and not delivery.doubts:
                yield f"{delivery.address} is uncertain, and nothing is on record that made it so"
    bound = evidence.world.lost_workers * 2 * (CONNECTIONS * IN_FLIGHT + MARKED_AHEAD)
    if in_doubt > bound:
        yield f"{in_doubt} were in doubt, and with {evidence.world.lost_workers} workers at most {bound} could be"


def no_window_holds_more_than_the_limit_allows(evidence: Evidence) -> Breaches:
    interval = -(-SECOND // RATE)
    received = evidence.world.sinks[LIMITED].received()
    late = _held_up(received, evidence.world.stalls)
    latest = None
    on_time = [mail.at_ns for mail in received if id(mail) not in late]
    for count, at in enumerate(sorted(on_time)):
        begin = at - count * interval
        latest = begin if latest is None else max(latest, begin)
        if latest > begin + (BURST - 1) * interval:
            over = (latest - begin) // interval + 1
            yield f"{over} mails in some window, beyond {RATE} a second, when {BURST} are allowed: until {at} ns"
            return


def _held_up(received: list[Received], stalls: list[tuple[int, int]]) -> set[int]:
    """Mails that were on their way when their worker was frozen or cut off, and arrived when it was back: as many as a
    connection carries, of each that was silent meanwhile."""
    late = set()
    by_connection = defaultdict(list)
    for mail in received:
        by_connection[mail.connection].append(mail)
    for begin, end in stalls:
        for mails in by_connection.values():
            silent = not any(begin + SETTLED < mail.at_ns < end for mail in mails)
            if silent and mails[0].at_ns < begin + SETTLED:
                late |= {id(mail) for mail in [mail for mail in mails if mail.at_ns >= end][:IN_FLIGHT]}
    return late


def while_paused_or_cancelled_nothing_new_goes(evidence: Evidence) -> Breaches:
    for standing in evidence.world.standstills:
        domain = evidence.world.plans[standing.slug].domain
        until = standing.until_ns or float("inf")
        for address, mails in evidence.arrivals.items():
            gone = [mail for mail in mails if standing.since_ns < mail.at_ns < until]
            if address.endswith(f"@{domain}") and gone and address not in standing.under_way:
                after = (gone[0].at_ns - standing.since_ns) / SECOND
                yield f"{address} was sent {after:.3f} s after {standing.slug} was paused or cancelled"


PROMISES = (
    everybody_is_accounted_for,
    the_execution_log_tells_the_same_story,
    nothing_is_left_in_anybodys_hands,
    every_run_ends_as_it_should,
    nothing_is_lost_and_nothing_doubled_in_silence,
    a_double_bears_the_same_message_id,
    in_doubt_is_only_what_was_in_flight,
    no_window_holds_more_than_the_limit_allows,
    while_paused_or_cancelled_nothing_new_goes,
)


def broken(world: World) -> list[tuple[str, str]]:
    """What broke a promise: (promise, words) for each. Prints what there was to be seen, also when nothing broke."""
    evidence = Evidence(world)
    for run in evidence.runs:
        doubts = sum(delivery.doubts for delivery in run.deliveries)
        doubled = sum(len(evidence.arrivals[delivery.address]) > 1 for delivery in run.deliveries)
        ends = {state: n for state, n in run.counts.items() if n}
        print(f"{run.plan.slug:12} {run.state:10} {ends}, in doubt {doubts} times, doubled {doubled}")
    return [(promise.__name__, words) for promise in PROMISES for words in promise(evidence)]
