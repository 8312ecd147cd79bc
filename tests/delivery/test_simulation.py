"""Whole simulations: the worker's own code over scripted vendors, and what becomes of every delivery."""

import dataclasses
import itertools
import sys
from datetime import timedelta

import pytest

from delivery.core.breaker import BreakerPolicy
from delivery.core.dispatch import UncertainPolicy
from delivery.core.envelope import Kind
from delivery.core.failover import Strategy
from delivery.core.retry import Backoff, RetryPolicy, RetryRule
from delivery.core.script import VendorScript
from delivery.core.throttle import SECOND
from delivery.models.batch import BatchState
from delivery.simulation.run import Progress, Scenario, Simulation, simulate
from delivery.simulation.vendors import Policies

pytestmark = pytest.mark.once

NEVER_OPENS = BreakerPolicy(threshold=None)
ONE_TRY = RetryPolicy(RetryRule(1))
# Short waits, so that no scenario spends its time on the last few deliveries.
HASTY = RetryPolicy(RetryRule(5, Backoff(base=timedelta(seconds=2), longest=timedelta(seconds=20))))
STEADY = "alpha:rate=50/s,latency=80ms", "beta:rate=50/s,latency=80ms"
TROUBLED = (
    "alpha:rate=40/s,latency=80ms,spread=50%,errors=10%,rejects=5%,slow=2%,drops=3%,down=1s-4s",
    "beta:rate=30/s,batch=7,concurrency=2,latency=300ms,errors=5%,rejects=5%,drops=3%,locked=2s-3s,keys=yes",
)
ENDS = {"accepted", "rejected", "dead", "uncertain"}


def scenario(deliveries, *vendors, workers=1, seed="1", uncertain=UncertainPolicy.HOLD, **policies):
    policies = {"retry": HASTY, **policies}
    scripts = tuple(map(VendorScript.read, vendors))
    return Scenario(deliveries, scripts, Policies(**policies), uncertain, workers, seed)


def run(deliveries, *vendors, **options):
    return simulate(scenario(deliveries, *vendors, **options))


def answered(result, kind):
    """How often each vendor answered so, in order."""
    return [vendor.answers[kind] for vendor in result.vendors]


def taken_in(result, seconds):
    """What each vendor took in each of these seconds."""
    return [tuple(vendor.per_second[second] for vendor in result.vendors) for second in seconds]


def discrepancies(result):
    """What does not fit together in a result, counted by the deliveries and by the vendors."""
    accepted, rejected, dead, uncertain = (
        result.tally.get(end, 0) for end in ("accepted", "rejected", "dead", "uncertain")
    )
    taken = sum(vendor.per_second.total() for vendor in result.vendors)
    keeps_keys = any(vendor.keys for vendor in result.scenario.vendors)
    held = result.scenario.uncertain is UncertainPolicy.HOLD and not keeps_keys
    if not result.reconciles:
        yield f"{result.states} and {result.tally} do not reconcile"
    if not result.tally.keys() <= ENDS or accepted + rejected + dead + uncertain != result.scenario.deliveries:
        yield f"{result.tally} are no ends of {result.scenario.deliveries} deliveries"
    if sum(answered(result, Kind.ACCEPTED)) != accepted:
        yield f"{accepted} are accepted, and the vendors said so {answered(result, Kind.ACCEPTED)} times"
    if sum(answered(result, Kind.RECIPIENT)) != rejected:
        yield f"{rejected} are rejected, and the vendors said so {answered(result, Kind.RECIPIENT)} times"
    if held and sum(answered(result, Kind.UNKNOWN)) != uncertain:
        yield f"{uncertain} are uncertain, and the vendors were silent {answered(result, Kind.UNKNOWN)} times"
    if held and not accepted <= taken <= accepted + uncertain:
        yield f"{taken} were taken, {accepted} are accepted and {uncertain} uncertain"
    if any(second > result.seconds for vendor in result.vendors for second in vendor.per_second):
        yield f"mails were taken after the end at {result.seconds}"


# ---- everything is accounted for ----


@pytest.mark.parametrize("uncertain", UncertainPolicy)
@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("workers", [1, 3])
def test_whatever_the_vendors_do_every_delivery_has_one_end(strategy, uncertain, workers, seed):
    result = run(400, *TROUBLED, strategy=strategy, uncertain=uncertain, workers=workers, seed=str(seed))

    assert list(discrepancies(result)) == []
    assert ENDS - {"uncertain"} >= result.tally.keys() - {"uncertain"} >= {"accepted", "rejected"}


SUBSETS = [
    dict(zip(("retry", "breaker", "limiter"), each, strict=True)) for each in itertools.product([0, 1], repeat=3)
]


@pytest.mark.parametrize("on", SUBSETS, ids=lambda on: "+".join(name for name in on if on[name]) or "none")
def test_with_any_of_the_middlewares_every_delivery_has_one_end(on, seed):
    policies = {
        "retry": HASTY if on["retry"] else ONE_TRY,
        "breaker": BreakerPolicy() if on["breaker"] else NEVER_OPENS,
        "limited": bool(on["limiter"]),
    }

    assert list(discrepancies(run(200, *TROUBLED, seed=str(seed), **policies))) == []


def test_whatever_the_scripts_say_it_reconciles(rng):
    settings = {
        "rate": ["20/s", "100/s", "600/m", "50/s,burst=1"],
        "latency": ["5ms", "80ms", "700ms"],
        "spread": ["50%"],
        "errors": ["1%", "20%"],
        "rejects": ["5%"],
        "slow": ["3%"],
        "drops": ["4%"],
        "down": ["0s-5s", "1s-20s"],
        "locked": ["0s-5s", "2s-9s"],
        "batch": ["7", "50", "1000"],
        "concurrency": ["1", "4", "20"],
        "weight": ["3"],
        "keys": ["yes"],
    }
    for number in range(12):
        scripts = [
            f"v{n}:" + ",".join(f"{key}={rng.choice(values)}" for key, values in settings.items() if rng.random() < 0.4)
            for n in range(rng.choice([1, 2, 3]))
        ]
        chosen = scenario(
            rng.choice([1, 20, 300]),
            *scripts,
            workers=rng.choice([1, 2, 5]),
            seed=str(number),
            uncertain=rng.choice(list(UncertainPolicy)),
            strategy=rng.choice(list(Strategy)),
            breaker=rng.choice([BreakerPolicy(), NEVER_OPENS]),
            limited=rng.choice([True, False]),
            retry=rng.choice([HASTY, ONE_TRY]),
        )

        assert list(discrepancies(simulate(chosen))) == [], chosen


def test_one_delivery_takes_one_answer():
    result = run(1, "alpha:latency=80ms")

    assert (result.states, result.tally) == ({"accepted": 1}, {"accepted": 1})
    assert answered(result, Kind.ACCEPTED) == [1]
    assert 0.08 <= result.seconds < 0.2


def test_of_nothing_nothing_can_be_said():
    with pytest.raises(ValueError, match="nothing to deliver"):
        Simulation(scenario(0, "alpha"))


def test_a_result_that_does_not_add_up_says_so():
    result = run(5, "alpha")

    assert result.reconciles
    assert not dataclasses.replace(result, states={"accepted": 4, "ready": 1}).reconciles
    assert not dataclasses.replace(result, states={"accepted": 4}, tally={"accepted": 4}).reconciles


def test_recipients_that_one_vendor_refuses_are_not_offered_to_the_other():
    result = run(500, "alpha:rejects=10%", "beta")

    assert answered(result, Kind.RECIPIENT) == [result.tally["rejected"], 0]
    assert answered(result, Kind.ACCEPTED) == [500 - result.tally["rejected"], 0]
    assert 25 <= result.tally["rejected"] <= 80


# ---- the answer that was lost ----


def test_what_was_answered_with_silence_is_held_and_never_sent_again():
    result = run(400, "alpha:rate=100/s,drops=5%", breaker=NEVER_OPENS)

    (silent,) = answered(result, Kind.UNKNOWN)
    assert result.tally == {"accepted": 400 - silent, "uncertain": silent}
    assert silent > 5
    assert result.vendors[0].per_second.total() < 400


def test_sent_again_by_policy_somebody_gets_it_twice_and_with_keys_nobody_does():
    options = {"breaker": NEVER_OPENS, "uncertain": UncertainPolicy.RESEND}
    careless = run(400, "alpha:rate=100/s,drops=5%", **options)
    minding = run(400, "alpha:rate=100/s,drops=5%,keys=yes", **options)

    assert careless.tally == minding.tally == {"accepted": 400}
    assert careless.vendors[0].per_second.total() > 400
    assert minding.vendors[0].per_second.total() == 400


def test_a_vendor_that_minds_keys_is_asked_again_whatever_the_policy():
    result = run(400, "alpha:rate=100/s,drops=5%,keys=yes", breaker=NEVER_OPENS)

    assert result.tally == {"accepted": 400}
    assert result.vendors[0].per_second.total() == 400


# ---- failover ----


def test_when_the_first_vendor_goes_down_its_deliveries_go_to_the_second_within_a_second():
    result = run(1000, f"{STEADY[0]},down=5s-15s", STEADY[1])

    before, after = taken_in(result, range(5)), taken_in(result, range(6, 15))
    assert result.tally == {"accepted": 1000}
    assert all(first >= 49 and second == 0 for first, second in before)
    assert all(first == 0 and second >= 49 for first, second in after)
    assert taken_in(result, [5])[0][1] >= 40


def test_one_that_is_down_from_the_beginning_costs_less_than_a_second():
    healthy = run(500, STEADY[1])
    result = run(500, "alpha:rate=50/s,latency=80ms,down=0s-1h", STEADY[1])

    assert answered(result, Kind.ACCEPTED) == [0, 500]
    assert result.seconds <= healthy.seconds + 1


def test_one_that_locks_us_out_is_left_alone_until_its_probes():
    result = run(500, f"{STEADY[0]},locked=0s-1h", STEADY[1])

    assert result.tally == {"accepted": 500}
    assert answered(result, Kind.ACCEPTED) == [0, 500]
    assert answered(result, Kind.ENGINE)[0] <= 50  # its burst: what was handed over before the first answer was there


def test_when_all_are_down_everything_waits_and_nothing_is_lost():
    result = run(200, f"{STEADY[0]},down=0s-30s", f"{STEADY[1]},down=0s-30s")

    assert result.tally == {"accepted": 200}
    assert taken_in(result, range(30)) == [(0, 0)] * 30


# ---- strategies ----


def test_by_priority_the_second_vendor_gets_nothing_while_the_first_is_able():
    assert answered(run(500, *STEADY), Kind.ACCEPTED) == [500, 0]


def test_by_priority_the_first_vendor_gets_everything_again_when_it_is_back():
    result = run(9000, f"{STEADY[0]},down=2s-6s", "beta:rate=400/s")

    assert all(first >= 49 and second == 0 for first, second in taken_in(result, range(2)))
    # The circuit cools off for fifteen seconds; then a probe closes it.
    assert all(first == 0 and second >= 350 for first, second in taken_in(result, range(3, 17)))
    assert all(first >= 49 and second == 0 for first, second in taken_in(result, range(22, 40)))


@pytest.mark.parametrize("workers", [1, 3])
def test_by_priority_a_slow_second_vendor_does_not_keep_what_the_first_could_have_when_it_is_back(workers):
    result = run(3000, "alpha:rate=100/s,latency=80ms,down=5s-20s", "beta:rate=1/s", workers=workers)

    # Thirty seconds for the mails, fifteen in which only the second vendor is there, and the time until the probe.
    assert result.seconds < 90


def test_a_sticky_pool_stays_with_the_second_vendor_when_the_first_is_back():
    result = run(1500, f"{STEADY[0]},down=2s-6s", STEADY[1], strategy=Strategy.STICKY)

    assert all(first >= 49 and second == 0 for first, second in taken_in(result, range(2)))
    assert all(first == 0 and second >= 49 for first, second in taken_in(result, range(3, 27)))
    assert answered(result, Kind.ACCEPTED)[0] + answered(result, Kind.ACCEPTED)[1] == 1500


def test_by_weight_the_vendors_get_their_shares(seed):
    result = run(4000, "alpha:weight=3", "beta:weight=1", strategy=Strategy.WEIGHTED, seed=str(seed))

    first, second = answered(result, Kind.ACCEPTED)
    assert first + second == 4000
    assert abs(first - 3000) < 5 * (4000 * 0.75 * 0.25) ** 0.5


def test_by_weight_the_others_share_what_one_that_is_down_would_have_had():
    result = run(
        900, "alpha:weight=8,down=0s-1h", "beta:rate=50/s,weight=1", "gamma:rate=50/s,weight=1",
        strategy=Strategy.WEIGHTED,
    )  # fmt: skip

    none, second, third = answered(result, Kind.ACCEPTED)
    assert (none, second + third) == (0, 900)
    assert 350 <= second <= 550


# ---- what each middleware prevents ----


def test_without_the_rate_limiter_the_vendor_says_slow_down_and_with_it_never():
    limited = run(500, STEADY[0])
    unlimited = run(500, STEADY[0], limited=False)

    assert answered(limited, Kind.THROTTLED) == [0]
    assert answered(unlimited, Kind.THROTTLED)[0] > 100
    assert limited.tally == unlimited.tally == {"accepted": 500}


def test_without_the_circuit_breaker_an_outage_gets_many_more_calls():
    vendors = f"{STEADY[0]},down=2s-12s", STEADY[1]
    guarded = run(1000, *vendors)
    unguarded = run(1000, *vendors, breaker=NEVER_OPENS)

    assert answered(guarded, Kind.TRANSIENT)[0] < 30
    assert answered(unguarded, Kind.TRANSIENT)[0] > 400
    assert guarded.tally == unguarded.tally == {"accepted": 1000}


def test_with_the_circuit_breaker_an_outage_gets_one_probe_for_each_cool_off():
    result = run(300, f"{STEADY[0]},down=0s-100s", "beta:rate=2/s")

    # Five faults at least, and what was on its way with them; then a probe after 15 s, 30 s and 60 s.
    in_flight = 50
    assert 5 + 3 <= answered(result, Kind.TRANSIENT)[0] <= 5 + in_flight + 3


def test_without_retries_every_error_is_a_dead_letter_and_with_them_none_is():
    vendor = "alpha:rate=100/s,errors=10%"
    tried = run(500, vendor)
    once = run(500, vendor, retry=ONE_TRY)

    (errors,) = answered(once, Kind.TRANSIENT)
    assert once.tally == {"accepted": 500 - errors, "dead": errors}
    assert errors > 20
    assert tried.tally == {"accepted": 500}


def test_who_is_never_well_is_tried_as_often_as_the_policy_says():
    retry = RetryPolicy(RetryRule(4, Backoff(base=timedelta(seconds=1))))
    result = run(30, "alpha:errors=100%", retry=retry, breaker=NEVER_OPENS)

    assert result.tally == {"dead": 30}
    assert answered(result, Kind.TRANSIENT) == [30 * 4]


# ---- rates, batches, workers ----


@pytest.mark.parametrize(
    ("script", "deliveries", "workers"),
    [
        ("rate=100/s,latency=80ms", 3000, 1),
        ("rate=100/s,latency=80ms", 3000, 4),
        ("rate=100/s,latency=80ms,burst=2", 1000, 1),
        ("rate=50/s,latency=80ms,burst=10,batch=10", 1500, 1),
        ("rate=500/s,latency=20ms", 10_000, 1),
        ("rate=3/s,latency=1s", 90, 1),
        ("rate=600/m,latency=80ms", 300, 2),
        ("rate=20/m,burst=2", 60, 1),
    ],
)
def test_a_vendor_is_used_at_95_percent_of_its_rate_at_least_and_never_above_it(script, deliveries, workers):
    result = run(deliveries, f"alpha:{script}", workers=workers)

    (alpha,) = result.scenario.vendors
    quickest = (deliveries - alpha.rate.burst) * alpha.rate.interval / SECOND + alpha.latency.total_seconds()
    assert quickest <= result.seconds <= quickest / 0.95
    assert answered(result, Kind.THROTTLED) == [0]


@pytest.mark.parametrize(
    ("script", "deliveries", "workers", "share"),
    [
        ("rate=20/s,latency=20ms,concurrency=1", 2000, 1, 0.95),
        ("rate=20/s,latency=100ms,concurrency=4", 2000, 1, 0.95),
        ("rate=200/s,latency=20ms,concurrency=6", 10_000, 1, 0.95),
        # Towards the end not all of them have work: each leases some hundred ahead.
        ("rate=60/s,latency=100ms,concurrency=4", 6000, 4, 0.90),
    ],
)
def test_workers_with_few_connections_use_the_rate_as_well(script, deliveries, workers, share):
    result = run(deliveries, f"alpha:{script}", workers=workers)

    (alpha,) = result.scenario.vendors
    assert result.seconds <= (deliveries - alpha.rate.burst) * alpha.rate.interval / SECOND / share


# Without a burst, a tenth of the rate is the price of tokens that are used late (see `Rate.guarded`).
@pytest.mark.parametrize("script", ["rate=9/s,burst=1", "rate=5/s,burst=1", "rate=3/s,burst=1"])
def test_a_vendor_that_allows_no_burst_is_used_at_90_percent_of_its_rate(script):
    result = run(60, f"alpha:{script}")

    (alpha,) = result.scenario.vendors
    assert result.seconds <= 59 * alpha.rate.interval / SECOND / 0.90


def test_a_vendor_that_takes_batches_gets_full_ones():
    result = run(1000, "alpha:batch=50,concurrency=1,latency=1s")

    # Twenty calls of fifty, one after the other.
    assert 20 <= result.seconds < 20.5


def test_a_batch_is_no_larger_than_the_rate_allows_at_once():
    result = run(200, "alpha:batch=50,rate=50/s,burst=10,latency=100ms")

    assert answered(result, Kind.THROTTLED) == [0]
    assert result.tally == {"accepted": 200}


def test_several_workers_share_the_work_and_the_vendors_limit():
    # Each worker has four calls under way at a time, which take a tenth of a second.
    vendor = "alpha:concurrency=4,latency=100ms"
    alone, four = run(4000, vendor), run(4000, vendor, workers=4)
    limited = run(3000, "alpha:rate=60/s,latency=100ms", workers=4)

    assert 100 <= alone.seconds < 101
    assert 25 <= four.seconds < 35
    assert alone.tally == four.tally == {"accepted": 4000}
    assert 49 <= limited.seconds < 52
    assert answered(limited, Kind.THROTTLED) == [0]


# ---- chance ----


def test_the_same_seed_gives_the_same_result_and_another_one_another():
    options = {"workers": 3, "uncertain": UncertainPolicy.RESEND, "strategy": Strategy.WEIGHTED}
    first, again, other = (run(300, *TROUBLED, seed=seed, **options) for seed in ("1", "1", "2"))

    assert again == first
    assert (other.seconds, other.vendors) != (first.seconds, first.vendors)


def test_a_vendors_chance_is_its_own_whoever_stands_beside_it():
    alone = run(300, "alpha:rate=100/s,errors=20%", retry=ONE_TRY, breaker=NEVER_OPENS)
    beside = run(300, "alpha:rate=100/s,errors=20%", "beta:errors=20%", retry=ONE_TRY, breaker=NEVER_OPENS)

    assert beside.vendors[0] == alone.vendors[0]


def test_two_vendors_of_the_same_script_do_not_err_alike():
    options = {"retry": ONE_TRY, "breaker": NEVER_OPENS}
    errors = {
        name: [answered(run(200, f"{name}:errors=20%", seed=seed, **options), Kind.TRANSIENT) for seed in "12345"]
        for name in ("alpha", "beta")
    }

    assert errors["alpha"] != errors["beta"]


def test_errors_with_successes_between_them_do_not_open_the_circuit():
    # With this seed no more than two errors come in a row.
    result = run(500, "alpha:errors=10%", retry=ONE_TRY)

    assert result.seconds < 1


# ---- looking on ----


def test_who_watches_hears_of_the_progress_once_a_second_and_changes_nothing():
    seen: list[Progress] = []
    chosen = scenario(200, *STEADY)

    result = simulate(chosen, seen.append)

    assert [progress.seconds for progress in seen] == list(range(len(seen)))
    assert len(seen) - 1 <= result.seconds <= len(seen)
    ended = [sum(progress.ends.values()) for progress in seen]
    assert ended == sorted(ended)
    assert ended[0] == 0 < ended[1] < 200
    assert [name for name, _ in seen[-1].vendors] == ["alpha", "beta"]
    assert result == simulate(chosen)


def test_nothing_is_left_behind_by_who_watched(monkeypatch):
    unseen = []
    monkeypatch.setattr(sys, "unraisablehook", unseen.append)

    simulate(scenario(20, *STEADY), lambda progress: None)

    assert unseen == []


def test_its_end_is_that_of_the_queue():
    simulation = Simulation(scenario(20, *STEADY))

    result = simulation.run()

    assert simulation.queue.state is BatchState.DONE
    assert simulation.progress().ends == result.tally == {"accepted": 20}


def test_after_how_many_seconds_a_share_of_the_mails_was_taken():
    result = run(500, STEADY[0])

    (alpha,) = result.vendors
    sofar = list(itertools.accumulate(alpha.per_second[second] for second in range(11)))
    assert [result.taken_within(share) for share in (0.5, 0.99, 1)] == [
        next(second + 1 for second, mails in enumerate(sofar) if mails >= share * 500) for share in (0.5, 0.99, 1)
    ]
