"""The promises of the sender, asked of a world in which everything went wrong that can. Each is a function that returns
what broke it, in words; nothing returned, nothing broken."""

from collections import Counter, defaultdict

from delivery.core.breaker import State
from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind
from delivery.simulation.loop import EPOCH, SECOND
from delivery.worker.lane import MOST_AHEAD

OPEN = {"waiting", "ready", "leased", "sending"}


def everybody_is_accounted_for(world):
    counts, tally = world.queue.counts(), +world.queue.ends
    if counts != tally:
        yield f"counted {dict(counts)}, tallied {dict(tally)}"
    if sum(tally.values()) != world.script.deliveries or OPEN & counts.keys():
        yield f"{dict(tally)} of {world.script.deliveries}"


def by_delivery(world):
    found = defaultdict(list)
    for arrival in world.arrivals:
        found[arrival.delivery].append(arrival)
    return found


def nothing_is_lost_and_nothing_doubled_in_silence(world):
    arrivals = by_delivery(world)
    for delivery in range(1, world.script.deliveries + 1):
        state = world.queue.state_of(delivery)
        taken = [arrival for arrival in arrivals[delivery] if arrival.taken]
        if state == "accepted" and not taken:
            yield f"delivery {delivery} is accepted, and no vendor has it"
        if taken and state not in ("accepted", "uncertain"):
            yield f"delivery {delivery} is {state}, and vendor {taken[0].engine} has it"
        if len(taken) > 1 and world.script.uncertain is not UncertainPolicy.RESEND:
            yield f"delivery {delivery} was taken {len(taken)} times, and the policy is to hold"
        if len(taken) > 1 and world.queue.row(delivery).resends < len(taken) - 1:
            yield f"delivery {delivery} was taken {len(taken)} times, and says that it was sent again less often"
        if len({arrival.engine for arrival in taken}) > 1:
            yield f"delivery {delivery} was taken by two vendors"


def uncertain_is_only_what_was_in_flight(world):
    unknown = {failed.delivery for failed in world.queue.failures if failed.kind is Kind.UNKNOWN}
    for delivery in range(1, world.script.deliveries + 1):
        if world.queue.state_of(delivery) == "uncertain" and delivery not in unknown:
            yield f"delivery {delivery} is uncertain, and nothing happened to it"
    bound = sum(max(MOST_AHEAD, v.batch) + v.batch * v.concurrency for v in world.script.vendors)
    if len(world.queue.lost) > bound * world.queue.reaped:
        yield f"{len(world.queue.lost)} were lost with {world.queue.reaped} leases, more than {bound} with each"


def no_window_holds_more_than_the_limit_allows(world):
    for number, vendor in enumerate(world.script.vendors, 1):
        if vendor.rate is None:
            continue
        interval, burst = vendor.rate.interval, vendor.rate.burst
        latest = None
        for count, at in enumerate(sorted(a.at for a in world.arrivals if a.engine == number)):
            begin = at - count * interval
            latest = begin if latest is None else max(latest, begin)
            if latest > begin + (burst - 1) * interval:
                yield f"vendor {number} got more than its limit of {burst} + 1 in {interval} ns at {at / SECOND:.6f} s"
                break


def a_recipients_fault_is_never_carried_to_another_engine(world):
    for delivery, arrivals in by_delivery(world).items():
        refused = [n for n, arrival in enumerate(arrivals) if arrival.kind is Kind.RECIPIENT]
        if refused and any(a.engine != arrivals[refused[0]].engine for a in arrivals[refused[0] :]):
            yield f"delivery {delivery} was refused for its recipient and went to another vendor"


def tries_are_limited(world):
    counted = {Kind.ACCEPTED, Kind.RECIPIENT, Kind.TRANSIENT, Kind.UNKNOWN}
    retry = world.script.policies.retry
    most = max(rule.max_attempts for rule in (retry.rule, *retry.special.values()))
    lost = Counter(world.queue.lost)
    for delivery, arrivals in by_delivery(world).items():
        tries = sum(arrival.kind in counted for arrival in arrivals)
        if tries > most + lost[delivery]:
            yield f"delivery {delivery} was tried {tries} times, {most} are allowed and {lost[delivery]} were lost"


def after_a_suppression_nothing_goes_that_was_not_on_its_way(world):
    for arrival in world.arrivals:
        since = world.suppressed.get(arrival.delivery)
        if since is not None and arrival.at > since and arrival.marked_at > since:
            yield f"delivery {arrival.delivery} was marked and sent after it was suppressed"


def while_held_or_cancelled_nothing_new_goes(world):
    spans, begin = [], None
    for at, deed in world.deeds:
        if deed in ("hold", "cancel"):
            begin = at if begin is None else begin
        elif begin is not None:
            spans.append((begin, at))
            begin = None
    if begin is not None:
        spans.append((begin, float("inf")))
    for arrival in world.arrivals:
        if any(begin < arrival.marked_at < end for begin, end in spans):
            yield f"delivery {arrival.delivery} was marked and sent during a hold or after the cancellation"


def nobody_hands_over_after_his_lease(world):
    for arrival in world.arrivals:
        until = (arrival.lease_until - EPOCH).total_seconds()
        at = arrival.at / SECOND
        if at > until + 1e-6:
            yield f"delivery {arrival.delivery} was sent at {at:.3f} s, the lease was over at {until:.3f} s"


def a_probe_waits_for_the_whole_cool_off(world):
    for turn in world.shared.turns:
        before, after = turn.before.breaker, turn.after.breaker
        claimed = after.state is State.HALF_OPEN and before != after
        if claimed and turn.at / SECOND < (before.probe_at - EPOCH).total_seconds() - 1e-6:
            yield f"vendor {turn.engine} was probed at {turn.at / SECOND:.3f} s, before its time"


def an_open_circuit_gets_one_probe_for_each_cool_off(world):
    if world.script.outages or world.script.cuts or world.script.lost_answers:
        return  # who is cut off from the news cannot heed it
    for number, _ in enumerate(world.script.vendors, 1):
        opened, claims = None, 0
        for turn in [turn for turn in world.shared.turns if turn.engine == number]:
            before, after = turn.before.breaker.state, turn.after.breaker.state
            if before is State.CLOSED and after is State.OPEN:
                opened, claims = turn.at, 0
            if after is State.HALF_OPEN and turn.before.breaker != turn.after.breaker:
                claims += 1
            if after is State.CLOSED and before is not State.CLOSED:
                # A worker hears of it when it looks again, a second later at most, and its database takes its time.
                heard = opened + 2 * SECOND
                late = [a for a in world.arrivals if a.engine == number and heard < a.marked_at < turn.at]
                if len(late) > claims:
                    yield f"vendor {number} got {len(late)} mails while its circuit was open, for {claims} probes"


PROMISES = (
    everybody_is_accounted_for,
    nothing_is_lost_and_nothing_doubled_in_silence,
    uncertain_is_only_what_was_in_flight,
    no_window_holds_more_than_the_limit_allows,
    a_recipients_fault_is_never_carried_to_another_engine,
    tries_are_limited,
    after_a_suppression_nothing_goes_that_was_not_on_its_way,
    while_held_or_cancelled_nothing_new_goes,
    nobody_hands_over_after_his_lease,
    a_probe_waits_for_the_whole_cool_off,
    an_open_circuit_gets_one_probe_for_each_cool_off,
)


def broken(world):
    """What broke a promise: (promise, words) for each. The world is over after that."""
    breaches = [(promise.__name__, words) for promise in PROMISES for words in promise(world)]
    world.bury()
    return breaches
