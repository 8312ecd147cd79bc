"""The per-recipient log: every delivery, found by batch, state or address, without ever reading the whole table."""

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import now
from unfold.admin import ModelAdmin, TabularInline
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display

from delivery import queue
from delivery.admin import delivery_links as links
from delivery.admin.address_search import AddressSearch
from delivery.admin.event_form import EventForm
from delivery.admin.instants import shown_instant
from delivery.admin.keyset import KeysetList
from delivery.admin.readonly import ReadOnly
from delivery.admin.redirects import go_to
from delivery.models import (
    NO_DEADLINE,
    OPEN_STATES,
    Attempt,
    Batch,
    Composition,
    Delivery,
    DeliveryState,
    Engine,
    EventKind,
    Message,
)
from delivery.templating import TemplateProblem, compile_content

BATCH_PARAMETER = "batch__id__exact"
STATE_PARAMETER = "state__exact"
STEP_PARAMETER = "step"
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


def deliveries_url(batch_id: int, state: str | None = None, step: int | None = None) -> str:
    """The list of a batch's deliveries, of all or of those in one state (`OPEN` stands for every state but an end), or
    of one step."""
    query = f"?{BATCH_PARAMETER}={batch_id}" + (f"&{STATE_PARAMETER}={state}" if state else "")
    query += f"&{STEP_PARAMETER}={step}" if step else ""
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


class StepFilter(admin.SimpleListFilter):
    """One message of a batch that has several. There is none without a batch."""

    title = "step"
    parameter_name = STEP_PARAMETER

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        self._steps = _steps_of(request)
        return [(str(position), f"{position}: {subject}") for position, (_, subject) in self._steps.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if (step := self.value()) is None:
            return queryset
        if not step.isdecimal() or len(step) > 5 or int(step) not in self._steps:
            raise IncorrectLookupParameters(f"there is no step {step}")
        return queryset.filter(message=self._steps[int(step)][0])


def _steps_of(request: HttpRequest) -> dict[int, tuple[int, str]]:
    """Id and subject of each message, by position, when the list is of one batch that has several."""
    if not hasattr(request, "steps_of_batch"):
        chosen, found = request.GET.get(BATCH_PARAMETER, ""), {}
        if chosen.isdecimal() and len(chosen) <= 18:
            rows = Message.objects.filter(batch=int(chosen)).order_by("position")
            found = {position: (pk, subject) for pk, position, subject in rows.values_list("pk", "position", "subject")}
        request.steps_of_batch = found if len(found) > 1 else {}
    return request.steps_of_batch


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
    list_filter = (BatchFilter, StateFilter, StepFilter)
    actions_detail = ("record_event",)
    list_before_template = "admin/delivery/delivery/hint.html"
    empty_hint = "Deliveries appear here when a run begins to send: one for each recipient and message."
    inlines = (FailureInline,)

    def get_fieldsets(self, request: HttpRequest, obj: Delivery | None = None) -> list:
        """What there is to say of this one: most wait for nobody, and their text is the template's."""
        if obj is None:
            return []
        batch = _batch_of(obj)
        about = ["address", "name", "shown_state", "rendered_subject", "batch_link"]
        if obj.state in OPEN_STATES:
            about.insert(3, "waits")
        sets = [(None, {"fields": about})]
        if order := _order_fields(obj, batch):
            sets.append(("Order", {"fields": order}))
        sets.append(
            ("What came of it", {"fields": ("engine", "code", "words", "provider_id", "attempts", "resends", "events")})
        )
        sets.append(("When", {"fields": ("not_before", "shown_deadline", "tried_at", "settled_at")}))
        if _composition_of(obj):
            sets.append(("Composed text", {"fields": ("composition_state", "composed_text", "composed_by")}))
        internal = ("id", "identity", "priority", "pinned", "lease_holder")
        sets.append(("For the queue", {"fields": internal, "classes": ["collapse"]}))
        sets.append(("The recipient's data", {"fields": ("data",)}))
        return sets

    def changelist_view(self, request: HttpRequest, extra_context: dict | None = None) -> HttpResponse:
        bounded = STATE_PARAMETER in request.GET and BATCH_PARAMETER not in request.GET
        window = {"window": f"{WINDOW:,}" if bounded else ""}
        return super().changelist_view(request, {**(extra_context or {}), **window})

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # Two small queries and no join, which could lead the planner away from the primary key.
        more = [Prefetch("message", Message.objects.only("position"))] if _steps_of(request) else []
        return super().get_queryset(request).prefetch_related("batch", "engine", *more)

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        address, *others = super().get_list_display(request)
        return (address, "step", *others) if _steps_of(request) else (address, *others)

    # ---- what a person has heard ----

    def has_record_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("delivery.change_delivery")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[UnfoldAction]:
        """Of a mail that was never handed over nothing can be heard."""
        was_sent = Delivery.objects.filter(pk=object_id).exclude(tried_at=None, settled_at=None).exists()
        return super().get_actions_detail(request, object_id) if was_sent else []

    @action(
        description="Record an event",
        icon="campaign",
        permissions=["record"],
        url_path="record-event",
        dialog={
            "title": "What was heard of this mail?",
            "description": "Steps that wait for it see it, and where the run stops at it this recipient gets no more.",
            "form_class": EventForm,
            "form_submit_text": "Record",
        },
    )
    def record_event(self, request: HttpRequest, form: EventForm, object_id: str) -> HttpResponse:
        delivery = get_object_or_404(Delivery, pk=object_id)
        kind, by = EventKind(form.cleaned_data["kind"]), request.user.get_username()
        source = f"{form.cleaned_data['source']}, by {by}".removeprefix(", ")
        queue.record_events([queue.Heard(delivery.pk, kind, form.cleaned_data["at"], source)])
        batch = _batch_of(delivery)
        stops = batch is not None and kind in batch.stops_on
        messages.success(
            request, f"Recorded: {kind.label}." + (f" {delivery.address} gets no more of this run." if stops else "")
        )
        return go_to(request, reverse("admin:delivery_delivery_change", args=[delivery.pk]))

    # ---- what is shown ----

    @display(description="Step")
    def step(self, delivery: Delivery) -> str:
        message = _followed(delivery, "message")
        return str(message.position) if isinstance(message, Message) else str(message)

    @display(description="Waits")
    def waits(self, delivery: Delivery) -> str:
        return links.waits_for(delivery, _batch_of(delivery), now())

    @display(description="Id among the recipients")
    def own_key(self, delivery: Delivery) -> str:
        return delivery.key

    @display(description="Depends on")
    def depends_on(self, delivery: Delivery) -> SafeString | str:
        return links.depends_on(delivery)

    @display(description="Depend on it")
    def depended_on_by(self, delivery: Delivery) -> SafeString | str:
        return links.depended_on_by(delivery, _batch_of(delivery))

    @display(description="Other steps to this recipient")
    def other_steps(self, delivery: Delivery) -> SafeString | str:
        return links.other_steps(delivery)

    @display(description="Answers")
    def conversation(self, delivery: Delivery) -> SafeString | str:
        return links.conversation(delivery)

    @display(description="Heard of it")
    def events(self, delivery: Delivery) -> SafeString | str:
        return links.events_of(delivery)

    @display(description="State")
    def composition_state(self, delivery: Delivery) -> SafeString:
        composition = _composition_of(delivery)
        url = reverse("admin:delivery_composition_change", args=[delivery.pk])
        words = f": {composition.words}" if composition.words else ""
        label = composition.get_state_display()
        return format_html('<a class="text-link" href="{}">{}</a>{}', url, label, words)

    @display(description="Text")
    def composed_text(self, delivery: Delivery) -> SafeString | str:
        text = _composition_of(delivery).text
        return format_html('<pre class="outreach-source">{}</pre>', text) if text else "none yet"

    @display(description="Written by")
    def composed_by(self, delivery: Delivery) -> str:
        composition = _composition_of(delivery)
        name = Engine.objects.filter(pk=composition.engine_id).values_list("name", flat=True).first() or "gone"
        review = f", reviewed by {composition.reviewed_by}" if composition.reviewed_by else ""
        return f"{name}{review}"

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
        if delivery.deadline == NO_DEADLINE:
            return "none"
        accepted = delivery.state == DeliveryState.ACCEPTED and delivery.settled_at is not None
        kept = "" if not accepted else ", kept" if delivery.settled_at <= delivery.deadline else ", sent late"
        return f"{shown_instant(delivery.deadline)}{kept}"

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


def _batch_of(delivery: Delivery) -> Batch | None:
    batch = _followed(delivery, "batch")
    return batch if isinstance(batch, Batch) else None


def _composition_of(delivery: Delivery) -> Composition | None:
    return getattr(delivery, "composition", None)


def _order_fields(delivery: Delivery, batch: Batch | None) -> list[str]:
    """What there is to show of the place of a delivery among others."""
    if batch is None:
        return []
    has_steps = batch.sequenced or Message.objects.filter(batch=batch).count() > 1
    wanted = {
        "step": has_steps,
        "other_steps": has_steps,
        "conversation": bool(delivery.thread),
        "own_key": bool(delivery.key),
        "depends_on": batch.ordered,
        "depended_on_by": batch.ordered,
    }
    return [name for name, is_there in wanted.items() if is_there]


def _followed(delivery: Delivery, reference: str) -> object:
    """What a reference of a delivery points at. None of them has a constraint in the database."""
    try:
        return getattr(delivery, reference) or "-"
    except ObjectDoesNotExist:
        return "gone"
