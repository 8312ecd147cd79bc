"""A vendor by script: what can be written, what is refused and in which words, and what the vendor then answers."""

import math
import random
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from delivery.core.envelope import Kind
from delivery.core.script import (
    ACCEPTED,
    DOWN,
    ERROR,
    EXAMPLE,
    LOCKED,
    REJECTED,
    SECOND,
    SILENCE,
    SLOW,
    ScriptProblem,
    Span,
    Vendor,
    VendorScript,
)
from delivery.core.throttle import Period, Rate

pytestmark = pytest.mark.once

MANY = 20_000  # draws, where shares are counted
KNOWN = "batch, burst, concurrency, down, drops, errors, keys, latency, locked, rate, rejects, slow, spread, weight"


def read(settings):
    return VendorScript.read(f"alpha:{settings}")


def vendor(settings="", seed="1", began=0):
    return Vendor(read(settings), random.Random(seed), began)


def answers(to, count, now=0):
    """What it answers to as many mails that come at once, each for another recipient."""
    return [to.answer(f"{number:x}", now) for number in range(count)]


# ---- reading ----


def test_the_example_reads_as_what_it_says():
    assert VendorScript.read(EXAMPLE) == VendorScript(
        name="name",
        rate=Rate(10_000_000, 20),
        latency=timedelta(milliseconds=80),
        errors=0.01,
        down=(Span(60 * SECOND, 180 * SECOND),),
    )


@pytest.mark.parametrize("text", ["alpha", "alpha:", " alpha: ", "alpha:,,"])
def test_a_name_alone_is_a_vendor_that_takes_everything_at_once(text):
    assert VendorScript.read(text) == VendorScript("alpha")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("rate=100/s", {"rate": Rate.of(100, Period.SECOND)}),
        ("rate=3000/m", {"rate": Rate.of(3000, Period.MINUTE)}),
        ("rate=10000/h", {"rate": Rate.of(10_000, Period.HOUR)}),
        ("rate=50000/d", {"rate": Rate.of(50_000, Period.DAY)}),
        ("burst=7,rate=100/s", {"rate": Rate.of(100, Period.SECOND, 7)}),
        ("latency=80ms", {"latency": timedelta(milliseconds=80)}),
        ("latency=1.5s", {"latency": timedelta(seconds=1.5)}),
        ("latency=2m", {"latency": timedelta(minutes=2)}),
        ("latency=1h", {"latency": timedelta(hours=1)}),
        ("latency=365d", {"latency": timedelta(days=365)}),
        ("spread=20%", {"spread": 0.2}),
        ("errors=0.01", {"errors": 0.01}),
        ("errors=0%", {"errors": 0.0}),
        ("errors=100%", {"errors": 1.0}),
        ("errors=1", {"errors": 1.0}),
        ("rejects=2.5%", {"rejects": 0.025}),
        ("slow=3%", {"slow": 0.03}),
        ("drops=4%", {"drops": 0.04}),
        ("errors=70%,slow=20%,drops=10%", {"errors": 0.7, "slow": 0.2, "drops": 0.1}),
        ("down=0s-1.5s", {"down": (Span(0, 3 * SECOND // 2),)}),
        ("down=1s-2s,down=1m-2m", {"down": (Span(SECOND, 2 * SECOND), Span(60 * SECOND, 120 * SECOND))}),
        ("locked=500ms-1h", {"locked": (Span(SECOND // 2, 3600 * SECOND),)}),
        ("batch=500", {"batch": 500}),
        ("concurrency=10000", {"concurrency": 10_000}),
        ("weight=3", {"weight": 3}),
        ("keys=yes", {"keys": True}),
        ("keys=no", {"keys": False}),
        (" keys=yes , batch=2 ,", {"keys": True, "batch": 2}),
    ],
)
def test_every_setting_is_read(setting, expected):
    assert read(setting) == VendorScript("alpha", **expected)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("speed=9", f"alpha: 'speed=9' is no setting; known are {KNOWN}."),
        ("keys", f"alpha: 'keys' is no setting; known are {KNOWN}."),
        ("Keys=yes", f"alpha: 'Keys=yes' is no setting; known are {KNOWN}."),
        ("rate=fast", "alpha: 'fast' is no rate; write it like 100/s, 3000/m or 50000/d."),
        ("rate=0/s", "alpha: '0/s' is no rate; write it like 100/s, 3000/m or 50000/d."),
        ("rate=1.5/s", "alpha: '1.5/s' is no rate; write it like 100/s, 3000/m or 50000/d."),
        ("rate=-1/s", "alpha: '-1/s' is no rate; write it like 100/s, 3000/m or 50000/d."),
        ("rate=1000000000/s", "alpha: '1000000000/s' is no rate; write it like 100/s, 3000/m or 50000/d."),
        ("burst=5", "alpha: a burst needs a rate beside it, such as rate=100/s,burst=20."),
        ("rate=1/s,burst=0", "alpha: burst must be a whole number from 1 on, not '0'."),
        ("rate=1/s,burst", "alpha: burst must be a whole number from 1 on, not ''."),
        ("latency=80", "alpha: '80' is no duration; write it like latency=80ms."),
        ("latency=-1s", "alpha: '-1s' is no duration; write it like latency=80ms."),
        ("latency=366d", "alpha: '366d' is longer than a year; write it like latency=80ms."),
        ("spread=120%", "alpha: spread must be a share such as 1% or 0.01, not '120%'."),
        ("errors=-1%", "alpha: errors must be a share such as 1% or 0.01, not '-1%'."),
        ("rejects=2", "alpha: rejects must be a share such as 1% or 0.01, not '2'."),
        ("slow=some", "alpha: slow must be a share such as 1% or 0.01, not 'some'."),
        ("drops=", "alpha: drops must be a share such as 1% or 0.01, not ''."),
        (
            "errors=50%,slow=30%,drops=21%",
            "alpha: errors, slow and drops are shares of one whole: together at most 100%.",
        ),
        ("down=60s", "alpha: '' is no duration; write it like down=60s-180s."),
        ("down=180s-60s", "alpha: down=180s-60s ends before it begins; write it like down=60s-180s."),
        ("locked=1s-1s", "alpha: locked=1s-1s ends before it begins; write it like locked=60s-180s."),
        ("locked=a-b", "alpha: 'a' is no duration; write it like locked=60s-180s."),
        ("batch=0", "alpha: batch must be a whole number from 1 on, not '0'."),
        ("concurrency=1.5", "alpha: concurrency must be a whole number from 1 on, not '1.5'."),
        ("concurrency=10001", "alpha: concurrency must be at most 10,000, not 10001."),
        ("batch=999999999", "alpha: batch must be at most 10,000, not 999999999."),
        ("weight=none", "alpha: weight must be a whole number from 1 on, not 'none'."),
        ("keys=true", "alpha: keys must be yes or no, not 'true'."),
        ("errors=1%,batch=2,errors=2%", "alpha: errors comes twice; keep one of them."),
        ("rate=1/s,burst=1,burst=2", "alpha: burst comes twice; keep one of them."),
    ],
)
def test_what_cannot_be_read_is_said_with_the_vendor_the_value_and_a_good_one(setting, words):
    with pytest.raises(ScriptProblem) as caught:
        read(setting)

    assert str(caught.value) == words


@pytest.mark.parametrize("text", ["", ":rate=1/s", "-a:", "al pha:", "ä:", "a" * 41, "[bold]:", "rate=100/s"])
def test_a_script_without_a_plain_name_is_refused_with_an_example(text):
    with pytest.raises(ScriptProblem) as caught:
        VendorScript.read(text)

    assert str(caught.value) == f"{text!r} does not begin with a vendor's name: write it like {EXAMPLE}."


NUMBERS = st.one_of(
    st.integers(-2, 10**12).map(str),
    st.floats(0, 1e20).map(str),
    st.sampled_from(["", "9" * 400, "9" * 5_000, "0." + "9" * 5_000, "٣", "1e9", "nan", "inf", "²"]),
)
VALUES = st.one_of(
    NUMBERS,
    st.builds("{}{}".format, NUMBERS, st.sampled_from(["%", "ms", "s", "m", "h", "d", "/s", "/d", "/"])),
    st.builds("{}{}-{}{}".format, NUMBERS, st.sampled_from("smhd"), NUMBERS, st.sampled_from("smhd")),
    st.sampled_from(["yes", "no"]),
)
SETTINGS = st.builds("{}{}{}".format, st.sampled_from(KNOWN.split(", ")), st.sampled_from(["=", "=", "==", ""]), VALUES)
SCRIPTS = st.builds("alpha:{}".format, st.lists(SETTINGS, max_size=4).map(",".join))


@given(st.text() | SCRIPTS)
@example("a:rate=" + "9" * 5_000 + "/s")
@example("a:down=" + "9" * 400 + "s-1s")
@example("a:latency=999999999999d")
def test_any_text_reads_as_a_vendor_that_answers_or_is_a_problem(text):
    try:
        script = VendorScript.read(text)
    except ScriptProblem:
        return
    alpha = Vendor(script, random.Random(1))

    outcome, taken = alpha.answer("1", 0)

    assert 0 <= alpha.delay() <= 2 * timedelta(days=365).total_seconds()
    assert isinstance(outcome.kind, Kind)
    assert not taken or outcome in (ACCEPTED, SILENCE)


# ---- spans ----


def test_a_span_begins_with_its_first_nanosecond_and_its_end_is_not_part_of_it():
    down = vendor("down=60s-180s")
    instants = (0, 60 * SECOND - 1, 60 * SECOND, 180 * SECOND - 1, 180 * SECOND)

    assert [down.answer("1", at)[0] for at in instants] == [ACCEPTED, ACCEPTED, DOWN, DOWN, ACCEPTED]


def test_spans_count_from_when_the_vendor_began():
    began = 10**18
    late = vendor("locked=1s-2s", began=began)

    assert [late.answer("1", began + s * SECOND)[0] for s in (0, 1, 2)] == [ACCEPTED, LOCKED, ACCEPTED]


def test_a_vendor_with_several_spans_is_down_in_each_and_down_hides_locked():
    troubled = vendor("down=1s-2s,down=4s-5s,locked=4s-6s")

    assert [troubled.answer("1", s * SECOND)[0] for s in range(7)] == [
        ACCEPTED, DOWN, ACCEPTED, ACCEPTED, DOWN, LOCKED, ACCEPTED,
    ]  # fmt: skip


def test_what_fails_in_a_span_is_not_taken_and_costs_neither_a_token_nor_chance():
    troubled, fresh = vendor("rate=2/s,down=0s-1ms,errors=50%"), vendor("rate=2/s,errors=50%")
    failed = answers(troubled, 50)

    assert failed == [(DOWN, False)] * 50
    assert answers(troubled, 3, SECOND) == answers(fresh, 3, SECOND)


# ---- the rate ----


@given(
    st.sampled_from(["1/s,burst=1", "3/s", "100/s,burst=20", "1000/s,burst=1", "60/m", "7/s,burst=30"]),
    st.lists(st.tuples(st.integers(0, SECOND), st.integers(1, 60)), max_size=12),
)
def test_no_window_holds_more_than_the_vendor_allows(rate, arrivals):
    limited = vendor(f"rate={rate}")
    now, passed = 0, []
    for gap, mails in arrivals:
        now += gap
        passed += [now for outcome, _ in answers(limited, mails, now) if outcome == ACCEPTED]

    interval, burst = limited.script.rate.interval, limited.script.rate.burst
    assert all(
        (last - first + 1 - burst) * interval <= passed[last] - passed[first]
        for first in range(len(passed))
        for last in range(first + 1, len(passed))
    )


def test_who_keeps_to_the_rate_is_never_told_to_slow_down():
    limited = vendor("rate=1000/s,burst=1")
    interval = limited.script.rate.interval

    assert all(limited.answer("1", number * interval)[0] == ACCEPTED for number in range(500))


def test_a_flood_gets_the_burst_and_then_the_rate_and_the_rest_is_told_to_slow_down():
    flooded = vendor("rate=100/s,burst=20")
    said = Counter(flooded.answer("1", ms * SECOND // 1000)[0].kind for ms in range(10_000))

    assert said == {Kind.ACCEPTED: 20 + 1_000 - 1, Kind.THROTTLED: 10_000 - 1_019}


# ---- chance ----


def test_each_answer_has_its_share_and_silence_takes_half(seed):
    mixed = vendor("errors=10%,slow=5%,drops=20%", seed)
    said = Counter(answers(mixed, MANY))

    def close(count, share):
        """Within five standard deviations: once in a million runs it is not."""
        return abs(count - MANY * share) < 5 * math.sqrt(MANY * share * (1 - share))

    assert set(said) == {(ERROR, False), (SLOW, False), (SILENCE, True), (SILENCE, False), (ACCEPTED, True)}
    assert close(said[ERROR, False], 0.10)
    assert close(said[SLOW, False], 0.05)
    assert close(said[SILENCE, True], 0.10)
    assert close(said[SILENCE, False], 0.10)
    assert close(said[ACCEPTED, True], 0.65)


@pytest.mark.parametrize(
    ("shares", "outcome"),
    [("errors=100%", ERROR), ("slow=100%", SLOW), ("rejects=100%", REJECTED), ("errors=1,rejects=1", REJECTED)],
)
def test_a_share_of_all_is_all(shares, outcome):
    assert set(answers(vendor(shares), 500)) == {(outcome, False)}


def test_the_same_seed_answers_alike_and_another_one_does_not(seed):
    settings = "errors=30%,slow=10%,drops=30%,spread=50%,latency=1s"
    one, same, other = vendor(settings, seed), vendor(settings, seed), vendor(settings, f"not {seed}")

    first = [(answer, one.delay()) for answer in answers(one, 200)]

    assert [(answer, same.delay()) for answer in answers(same, 200)] == first
    assert [(answer, other.delay()) for answer in answers(other, 200)] != first


def test_delays_are_spread_evenly_around_the_latency(seed):
    spread = vendor("latency=100ms,spread=20%", seed)
    delays = [spread.delay() for _ in range(MANY)]

    assert 0.080 <= min(delays) < 0.081
    assert 0.119 < max(delays) <= 0.120
    assert sum(delays) / MANY == pytest.approx(0.100, abs=0.0005)
    assert {vendor("latency=100ms").delay(), vendor("latency=100ms", "other").delay()} == {0.1}


# ---- recipients ----


def test_a_recipient_is_refused_for_good_by_every_vendor_and_the_share_is_right(seed):
    keys = [f"{seed} {number}" for number in range(MANY)]
    one, other = vendor("rejects=5%", "one"), vendor("rejects=5%,errors=50%", "other")

    refused = {key for key in keys if one.answer(key, 0)[0] == REJECTED}

    assert {key for key in keys if other.answer(key, SECOND)[0] == REJECTED} == refused
    assert {key for key in keys if one.answer(key, 9 * SECOND)[0] == REJECTED} == refused
    assert abs(len(refused) - MANY * 0.05) < 5 * math.sqrt(MANY * 0.05 * 0.95)


def test_who_is_refused_by_a_mild_vendor_is_refused_by_a_strict_one():
    mild, strict = vendor("rejects=1%"), vendor("rejects=10%")
    refused = [{n for n, (outcome, _) in enumerate(answers(v, 5_000)) if outcome == REJECTED} for v in (mild, strict)]

    assert refused[0] < refused[1]


# ---- keys ----


def test_a_vendor_that_minds_keys_takes_each_once_and_says_yes_again():
    minding = vendor("keys=yes")

    assert [minding.answer(key, 0) for key in ("1", "1", "2", "1")] == [
        (ACCEPTED, True), (ACCEPTED, False), (ACCEPTED, True), (ACCEPTED, False),
    ]  # fmt: skip


def test_a_vendor_that_does_not_takes_a_mail_as_often_as_it_comes():
    careless = vendor()

    assert [careless.answer("1", 0) for _ in range(2)] == [(ACCEPTED, True)] * 2


def test_what_was_taken_in_silence_is_not_taken_again_and_what_was_not_still_is(seed):
    silent = vendor("drops=100%,keys=yes", seed)
    first = answers(silent, 1_000)
    taken = [was for _, was in first]
    for _ in range(40):  # until every key was taken
        taken = [was + again for was, (_, again) in zip(taken, answers(silent, 1_000), strict=True)]

    assert {outcome for outcome, _ in first} == {SILENCE}
    assert 0 < sum(was for _, was in first) < 1_000
    assert taken == [1] * 1_000


def test_what_failed_leaves_its_key_free():
    troubled = vendor("keys=yes,down=0s-1s")

    assert [troubled.answer("1", s * SECOND) for s in (0, 1, 2)] == [
        (DOWN, False), (ACCEPTED, True), (ACCEPTED, False),
    ]  # fmt: skip


# ---- counting ----


def test_it_counts_what_it_answered_and_what_it_took(seed):
    mixed = vendor("rate=200/s,errors=10%,rejects=10%,slow=5%,drops=20%,keys=yes,down=1s-2s,locked=2s-3s", seed)
    said = [answer for s in range(4) for answer in answers(mixed, 150, s * SECOND)]

    assert mixed.counts == dict.fromkeys(Kind, 0) | Counter(outcome.kind for outcome, _ in said)
    assert mixed.taken == sum(taken for _, taken in said)
