"""Engines in an operator's words: what their numbers come to. Says, and decides nothing."""

from datetime import date, datetime, timedelta

from django.utils.formats import date_format
from django.utils.timezone import localtime

from delivery.admin.instants import shown_instant
from delivery.core.breaker import Breaker, State
from delivery.core.condition import Condition
from delivery.core.throttle import Period
from delivery.core.warmup import DAY, Ramp
from delivery.models import Engine, EngineEvent, EngineLimit

USE_COLOURS = {"on": "success", "held": "warning", "off": "default"}
CIRCUIT_COLOURS = {"closed": "success", "half-open": "warning", "open": "danger"}
CIRCUIT_WORDS = {"closed": "closed", "half_open": "half-open", "open": "open"}
CIRCUIT_MEANS = {
    State.CLOSED: "closed: mails go through",
    State.HALF_OPEN: "half-open: one mail is out as a probe, the others wait for what comes of it",
    State.OPEN: "open: nothing goes through before a probe has succeeded",
}
FURTHEST = 3 * 365  # days; a warm-up that takes longer is taken for one without an end


def circuit_means(breaker: Breaker) -> str:
    return CIRCUIT_MEANS[breaker.state]


def faults_in_a_row(breaker: Breaker, threshold: int) -> str:
    if breaker.state is not State.CLOSED:
        return str(breaker.faults)
    return f"{breaker.faults} of the {threshold} that open the circuit"


def next_probe(breaker: Breaker, now: datetime) -> str:
    """When a mail may find out whether the engine is there again."""
    if breaker.state is State.CLOSED:
        return "-"
    if breaker.probe_at is None:
        return "not planned"
    return "with the next mail" if breaker.probe_at <= now else shown_instant(breaker.probe_at)


def pace(condition: Condition) -> str:
    return f"{condition.pace:.0%}"


def pace_means(condition: Condition) -> str:
    if condition.pace >= 1:
        return "100% of its limits"
    since = f" since {shown_instant(condition.pace_changed_at)}" if condition.pace_changed_at else ""
    return f"{pace(condition)} of its limits{since}: it was told to slow down, and comes back step by step"


def paused_until(condition: Condition, now: datetime) -> str:
    if condition.paused_until is None or condition.paused_until <= now:
        return "-"
    return shown_instant(condition.paused_until)


# ---- what people do ----


def use(engine: Engine, now: datetime) -> tuple[str, str]:
    """Whether mails may go through it as far as people have a say: a key of `USE_COLOURS`, and words."""
    if not engine.enabled:
        return "off", "switched off"
    if not engine.is_held(now):
        return "on", "in use"
    until = f" (until {shown_instant(engine.held_until)})" if engine.held_until else ""
    return "held", f"held: {engine.hold_reason}{until}"


def event(event: EngineEvent) -> tuple[str, str]:
    """When it was, and what."""
    by = f" by {event.by}" if event.by else ""
    return shown_instant(event.at), f"{event.what}{by}" + (f": {event.why}" if event.why else "")


# ---- limits ----


def limit_means(limit: EngineLimit) -> str:
    """What a limit promises of any window as long as its period: the burst, and what flows in meanwhile."""
    if not limit.quantity or limit.period not in set(Period):  # a row that is just being entered
        return ""
    rate = limit.rate
    most = rate.burst + Period(limit.period).nanoseconds // rate.interval
    return f"at most {most:,} {limit.counts} in any {limit.period}"


# ---- the warm-up ----


def warmup_means(ramp: Ramp | None, now: datetime) -> str:
    """What a warm-up allows today, and when it ends."""
    if ramp is None:
        return "There is none: only the limits hold."
    cap = ramp.cap_at(now)
    if cap is None:
        return f"Over since {_shown(_first_day_over(ramp, 0))}: only the limits hold."
    today = (now - ramp.since) // DAY
    over = _first_day_over(ramp, max(0, today))
    end = f"It is over on {_shown(over)}." if over else "At this growth it is not over within three years."
    if today < 0:
        return f"Begins on {_shown(ramp.since)}. Until then the first day's {cap:,} mails hold. {end}"
    return f"Day {today + 1}: at most {cap:,} mails in any 24 hours. {end}"


def _first_day_over(ramp: Ramp, first: int) -> datetime | None:
    """The first day without a cap, from day `first` on, the days counted from 0."""
    days = (ramp.since + timedelta(days=day) for day in range(first, first + FURTHEST))
    return next((day for day in days if ramp.cap_at(day) is None), None)


def _shown(day: datetime | date | None) -> str:
    return date_format(localtime(day), "DATE_FORMAT") if day else "-"
