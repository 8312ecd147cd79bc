"""The per-recipient log: every delivery, found by batch, state or address, without ever reading the whole table."""

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from delivery.admin.address_search import AddressSearch
from delivery.admin.instants import shown_instant
from delivery.admin.keyset import KeysetList
from delivery.admin.readonly import ReadOnly
from delivery.models import NO_DEADLINE, OPEN_STATES, Attempt, Batch, Delivery, DeliveryState
from delivery.templating import TemplateProblem, compile_content

BATCH_PARAMETER = "batch__id__exact"
STATE_PARAMETER = "state__exact"
OPEN = "open"  # beside the states: those that are not an end

LISTED_BATCHES = 20
# Without a batch no index leads to a state, so a rare one is looked for among so many deliveries and no further.
WINDOW = 250_000

STATE_COLOURS = {
    "waiting": "info",
    "ready": "info",
    "leased": "info",
    "sending": "info",
    "accepted": "success",
    "rejected": "warning",
    "expired": "warning",
    "dead letter": "danger",
    "uncertain": "danger",
}


def deliveries_url(batch_id: int, state: str | None = None) -> str:
    """The list of a batch's deliveries, of all or of those in one state (`OPEN` stands for every state but an end)."""
    query = f"?{BATCH_PARAMETER}={batch_id}" + (f"&{STATE_PARAMETER}={state}" if state else "")
    return reverse("admin:delivery_delivery_changelist") + query


class BatchFilter(admin.SimpleListFilter):
    """One batch: a slice of the primary key."""

    title = "batch"
    parameter_name = BATCH_PARAMETER

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        batches = dict(Batch.objects.order_by("-pk").values_list("pk", "label")[:LISTED_BATCHES])
        if (chosen := self._chosen()) and chosen not in batches:
            batches |= dict(Batch.objects.filter(pk=chosen).values_list("pk", "label"))
        return [(str(pk), label) for pk, label in batches.items()]

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if not (chosen := self._chosen()):
            return queryset
        rows = queryset.filter(batch=chosen)
        span = Batch.objects.filter(pk=chosen).values_list("first_id", "last_id").first()
        if span is None or None in span:  # it is still being filled: its rows are the newest ones of the table
            return rows
        return rows.filter(pk__range=span)

    def _chosen(self) -> int | None:
        text = self.value()
        if text is None:
            return None
        if not text.isdecimal() or len(text) > 18:
            raise IncorrectLookupParameters("a batch is chosen by its id")
        return int(text)


class StateFilter(admin.SimpleListFilter):
    """One state, or all that are not an end."""

    title = "state"
    parameter_name = STATE_PARAMETER

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [(OPEN, "still open"), *DeliveryState.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if (state := self.value()) is None:
            return queryset
        states = OPEN_STATES if state == OPEN else [state]
        if not set(states) <= set(DeliveryState.values):
            raise IncorrectLookupParameters(f"there is no state {state}")
        rows = queryset.filter(state__in=states)
        return rows if BATCH_PARAMETER in request.GET else rows.filter(pk__gt=_newest_id() - WINDOW)


def _newest_id() -> int:
    return Delivery.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


class FailureInline(ReadOnly, TabularInline):
    """The tries that did not succeed."""

    hide_title = True
    model = Attempt
    verbose_name_plural = "failed attempts"
    fields = ("at", "engine", "kind", "code", "words", "seconds")
    extra = 0


@admin.register(Delivery)
class DeliveryAdmin(AddressSearch, KeysetList, ReadOnly, ModelAdmin):
    list_display = ("address", "state_badge", "batch_label", "engine_name", "attempts", "answer", "settled_at")
    list_filter = (BatchFilter, StateFilter)
    list_before_template = "admin/delivery/delivery/hint.html"
    empty_hint = "Deliveries appear here when a run begins to send: one for each recipient and message."
    inlines = (FailureInline,)
    fieldsets = (
        (None, {"fields": ("address", "name", "shown_state", "rendered_subject", "batch_link")}),
        ("What came of it", {"fields": ("engine", "code", "words", "provider_id", "attempts", "resends")}),
        ("When", {"fields": ("not_before", "shown_deadline", "tried_at", "settled_at")}),
        (
            "For the queue",
            {"fields": ("id", "identity", "priority", "pinned", "lease_holder"), "classes": ["collapse"]},
        ),
        ("The recipient's data", {"fields": ("data",)}),
    )

    def changelist_view(self, request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
        bounded = STATE_PARAMETER in request.GET and BATCH_PARAMETER not in request.GET
        window = {"window": f"{WINDOW:,}" if bounded else ""}
        return super().changelist_view(request, {**(extra_context or {}), **window})

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # Two small queries and no join, which could lead the planner away from the primary key.
        return super().get_queryset(request).prefetch_related("batch", "engine")

    @display(description="State", label=STATE_COLOURS)
    def state_badge(self, delivery: Delivery) -> str:
        return delivery.get_state_display()

    @display(description="State")
    def shown_state(self, delivery: Delivery) -> str:
        return delivery.get_state_display()

    @display(description="Batch")
    def batch_label(self, delivery: Delivery) -> str:
        return str(_followed(delivery, "batch"))

    @display(description="Engine")
    def engine_name(self, delivery: Delivery) -> str:
        return str(_followed(delivery, "engine"))

    @display(description="Answer")
    def answer(self, delivery: Delivery) -> str:
        words = f"{delivery.code} {delivery.words}".strip()
        return words if len(words) <= 80 else words[:79] + "…"

    @display(description="Batch")
    def batch_link(self, delivery: Delivery) -> SafeString:
        label = _followed(delivery, "batch")
        return format_html('<a class="text-link" href="{}">{}</a>', deliveries_url(delivery.batch_id), label)

    @display(description="Deadline")
    def shown_deadline(self, delivery: Delivery) -> str:
        return "none" if delivery.deadline == NO_DEADLINE else shown_instant(delivery.deadline)

    @display(description="Lease")
    def lease_holder(self, delivery: Delivery) -> str:
        return str(_followed(delivery, "lease"))

    @display(description="Subject")
    def rendered_subject(self, delivery: Delivery) -> str:
        try:
            return compile_content(delivery.message.subject, "", "").render(delivery.data).subject
        except TemplateProblem as problem:
            return str(problem)
        except ObjectDoesNotExist:
            return "-"


def _followed(delivery: Delivery, reference: str) -> object:
    """What a reference of a delivery points at. None of them has a constraint in the database."""
    try:
        return getattr(delivery, reference) or "-"
    except ObjectDoesNotExist:
        return "gone"
