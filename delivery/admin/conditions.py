"""What the workers know of engines at this moment, asked once for a whole page."""

from collections.abc import Collection

from django.http import HttpRequest
from django.utils.timezone import now
from unfold.decorators import display
from unfold.views import ChangeList

from delivery.admin import engine_words as words
from delivery.admin.instants import shown_instant
from delivery.models import Engine
from delivery.shared import SharedAway, shared
from delivery.shared.base import Shared

NOT_KNOWN = "not known"
LISTED = ("circuit", "pace", "paused_until")
ON_ITS_PAGE = ("circuit_now", "faults", "probe_at", "pace_now", "paused_until", "last_error", "last_error_at")
AWAY = ("conditions_away",)


def look_at(engines: Collection[Engine], store: Shared | None = None) -> str:
    """Gives each engine its `condition`, by one question for all. None instead, and why as the answer, when the store
    of what workers share is away."""
    try:
        conditions = (store or shared()).conditions([engine.pk for engine in engines])
    except SharedAway as error:
        conditions, away = {}, str(error)
    else:
        away = ""
    for engine in engines:
        engine.condition = conditions.get(engine.pk)
    return away


class EngineList(ChangeList):
    """A page of engines, each with its condition. `away`: why those are not known, "" when they are."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        self.away = look_at(self.result_list)


class ShowsConditions:
    """Mixed into the ModelAdmin of engines: the columns of `LISTED`, and the fields that `state_fields` names."""

    list_before_template = "admin/delivery/engine/away.html"

    def get_changelist(self, request: HttpRequest, **kwargs: object) -> type[EngineList]:
        return EngineList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Engine | None:
        engine = super().get_object(request, object_id, from_field)
        if engine is not None:
            engine.away = look_at([engine])
        return engine

    @display(description="Circuit", label=words.CIRCUIT_COLOURS)
    def circuit(self, engine: Engine) -> str:
        return words.CIRCUIT_WORDS[engine.condition.breaker.state] if engine.condition else NOT_KNOWN

    @display(description="Pace")
    def pace(self, engine: Engine) -> str:
        return words.pace(engine.condition) if engine.condition else NOT_KNOWN

    @display(description="Paused until")
    def paused_until(self, engine: Engine) -> str:
        return words.paused_until(engine.condition, now()) if engine.condition else NOT_KNOWN

    @display(description="Not known now")
    def conditions_away(self, engine: Engine) -> str:
        return engine.away

    @display(description="Circuit")
    def circuit_now(self, engine: Engine) -> str:
        return words.circuit_means(engine.condition.breaker)

    @display(description="Faults in a row")
    def faults(self, engine: Engine) -> str:
        return words.faults_in_a_row(engine.condition.breaker, engine.fault_threshold)

    @display(description="Next probe")
    def probe_at(self, engine: Engine) -> str:
        return words.next_probe(engine.condition.breaker, now())

    @display(description="Pace")
    def pace_now(self, engine: Engine) -> str:
        return words.pace_means(engine.condition)

    @display(description="Last error")
    def last_error(self, engine: Engine) -> str:
        return engine.condition.last_error or "none"

    @display(description="Last error at")
    def last_error_at(self, engine: Engine) -> str:
        return shown_instant(engine.condition.last_error_at)


def state_fields(engine: Engine) -> list[str]:
    """What there is to show of an engine that was looked at."""
    return list(AWAY if engine.condition is None else ON_ITS_PAGE)
