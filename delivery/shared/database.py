"""Shared state in the database: one row for each bucket, engine and sticky pool, on the database's clock."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

from django.db import transaction
from django.db.models import F

from delivery.core.breaker import Breaker, State
from delivery.core.condition import Condition
from delivery.core.throttle import Rate, draw, given_back
from delivery.models import Bucket, EngineState, PoolState
from delivery.queue.dialect import database_now
from delivery.shared.base import Change, Drawn


class DatabaseShared:
    """See `delivery.shared.base.Shared`. A database that is away raises Django's own exceptions, which the worker's
    database waits out like any other statement's."""

    def draw(self, rates: Mapping[str, Rate], wanted: int) -> Drawn:
        if not rates:
            return Drawn(wanted)
        with transaction.atomic():
            states = _locked(rates)
            now = _nanoseconds()
            offers = [draw(rate, states[key], now, wanted) for key, rate in rates.items()]
            tokens = min(offer.tokens for offer in offers)
            if not tokens:
                for key, offer in zip(rates, offers, strict=True):
                    if not offer.tokens and offer.state != states[key]:
                        Bucket.objects.filter(pk=key).update(state=offer.state)
                return Drawn(0, max(offer.wait for offer in offers if not offer.tokens))
            left = {key: draw(rate, states[key], now, tokens).state for key, rate in rates.items()}
            for key, state in left.items():
                Bucket.objects.filter(pk=key).update(state=state)
        more = min(draw(rate, left[key], now, rate.burst).tokens for key, rate in rates.items())
        return Drawn(tokens, 0, left, more)

    def levels(self, rates: Mapping[str, Rate]) -> dict[str, int]:
        states = dict(Bucket.objects.filter(pk__in=list(rates)).values_list("pk", "state"))
        now = _nanoseconds()
        return {key: draw(rate, states.get(key, 0), now, rate.burst).tokens for key, rate in rates.items()}

    def give_back(self, rates: Mapping[str, Rate], left: Mapping[str, int], tokens: int) -> None:
        with transaction.atomic():
            for key, state in _locked(rates).items():
                Bucket.objects.filter(pk=key).update(state=given_back(rates[key], state, left[key], tokens))

    def conditions(self, engine_ids: Iterable[int]) -> dict[int, Condition]:
        wanted = list(engine_ids)
        known = {row.engine_id: _condition(row) for row in EngineState.objects.filter(engine__in=wanted)}
        return {engine_id: known.get(engine_id, Condition()) for engine_id in wanted}

    def change(self, engine_id: int, change: Change) -> bool:
        now = database_now()
        while True:
            row, _ = EngineState.objects.get_or_create(engine_id=engine_id)
            before = _condition(row)
            after = change(before, now)
            if after is None or after == before:
                return False
            unchanged = EngineState.objects.filter(engine_id=engine_id, version=row.version)
            if unchanged.update(**_columns(after), version=F("version") + 1):
                return True

    def current(self, pool_id: int) -> int | None:
        return PoolState.objects.filter(pool=pool_id).values_list("current_id", flat=True).first()

    def move(self, pool_id: int, before: int | None, after: int | None) -> bool:
        PoolState.objects.get_or_create(pool_id=pool_id)
        return bool(PoolState.objects.filter(pool=pool_id, current=before).update(current=after))


def _locked(rates: Mapping[str, Rate]) -> dict[str, int]:
    """The states of these buckets, which nobody else changes before the transaction ends. In a fixed order, so that two
    draws cannot wait for each other in a circle."""
    rows = Bucket.objects.select_for_update().filter(key__in=rates).order_by("key")
    states = {bucket.key: bucket.state for bucket in rows}
    for key in sorted(rates.keys() - states):
        Bucket.objects.bulk_create([Bucket(key=key)], ignore_conflicts=True)
        states[key] = Bucket.objects.select_for_update().get(pk=key).state
    return states


def _nanoseconds() -> int:
    now = database_now()
    return int(now.timestamp()) * 1_000_000_000 + now.microsecond * 1000


def _condition(row: EngineState) -> Condition:
    return Condition(
        breaker=Breaker(State(row.circuit), row.faults, timedelta(seconds=row.cool_off_seconds), row.probe_at),
        pace=row.pace,
        pace_changed_at=row.pace_changed_at,
        paused_until=row.paused_until,
        last_error=row.last_error,
        last_error_at=row.last_error_at,
    )


def _columns(condition: Condition) -> dict[str, object]:
    breaker = condition.breaker
    return {
        "circuit": breaker.state,
        "faults": breaker.faults,
        "cool_off_seconds": breaker.cool_off.total_seconds(),
        "probe_at": breaker.probe_at,
        "pace": condition.pace,
        "pace_changed_at": condition.pace_changed_at,
        "paused_until": condition.paused_until,
        "last_error": condition.last_error,
        "last_error_at": condition.last_error_at,
    }
