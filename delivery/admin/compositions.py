"""The review of composed texts: what waits for a person, and what he may say to it.

The pages show and parse; what follows is decided by `delivery.queue.composing`.
"""

import json
from collections.abc import Callable, Collection

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.views import ChangeList
from unfold.widgets import UnfoldAdminTextareaWidget

from delivery.admin.deliveries import deliveries_url
from delivery.admin.instants import shown_instant
from delivery.admin.redirects import go_to
from delivery.composed_body import tidy
from delivery.models import NO_DEADLINE, Composition, CompositionState, DeliveryState, Engine
from delivery.queue import composing
from delivery.rendered_mail import rendered_part

CONFIRMED = "confirmed"
MOST = 1000  # at a time by hand, ten pages
SHOWN_WORDS = 140  # characters in the list
TOO_LATE = "Somebody else has decided meanwhile, or its mail has ended."

Deed = Callable[[Collection[int], str], int]


class TextForm(ModelForm):
    """The words, as they will go out."""

    class Meta:
        model = Composition
        fields = ("text",)

    text = forms.CharField(
        label="Text",
        widget=UnfoldAdminTextareaWidget({"rows": 16}),
        help_text="It goes out as it stands here: as plain text, and as HTML with the same paragraphs.",
    )

    def clean_text(self) -> str:
        return tidy(self.cleaned_data["text"])


class BatchFilter(admin.SimpleListFilter):
    """The runs of which anything waits for review."""

    title = "run"
    parameter_name = "batch"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        waiting = Composition.objects.filter(state=CompositionState.REVIEW)
        return [(str(pk), label) for pk, label in waiting.values_list("batch", "batch__label").distinct()[:20]]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        value = self.value() or ""
        return queryset.filter(batch=int(value)) if value.isdecimal() and len(value) <= 18 else queryset


class ReviewList(ChangeList):
    """What waits for a person, and whose mail still waits for it."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str] | None = None) -> QuerySet:
        rows = super().get_queryset(request, exclude_parameters)
        return rows.filter(state=CompositionState.REVIEW, delivery__state=DeliveryState.WAITING)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count  # equal, so that unfold does not offer to show all


@admin.register(Composition)
class CompositionAdmin(ModelAdmin):
    form = TextForm
    list_display = ("recipient", "batch_label", "deadline_or_none", "beginning", "composed_at")
    list_filter = (BatchFilter,)
    search_fields = ("delivery__address__icontains",)
    search_help_text = "An address, or a part of it"
    ordering = ("deadline", "pk")
    sortable_by = ()
    show_full_result_count = False
    empty_hint = (
        "Nothing waits for review. Texts that a language model has composed appear here before they go out, when their "
        "step says that a person reviews them."
    )
    actions = ("approve_selected", "use_template_selected", "reject_selected")
    actions_detail = ("use_template", "reject")
    readonly_fields = (
        "recipient",
        "batch_link",
        "subject",
        "deadline_or_none",
        "state_now",
        "asked",
        "composer",
        "composed_at",
        "attempts",
        "trouble",
        "data",
        "reviewed_by",
        "reviewed_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).select_related("delivery__message", "batch")

    def get_changelist(self, request: HttpRequest, **kwargs: object) -> type[ChangeList]:
        return ReviewList

    def get_fieldsets(self, request: HttpRequest, obj: Composition | None = None) -> list:
        sets = [
            (None, {"fields": ("recipient", "batch_link", "subject", "deadline_or_none", "state_now")}),
            ("What will be sent", {"fields": ("text",)}),
            ("How it was composed", {"fields": ("asked", "composer", "composed_at", "attempts", "trouble")}),
            ("The recipient's data", {"fields": ("data",)}),
        ]
        if obj and obj.reviewed_at:
            sets.insert(2, ("Review", {"fields": ("reviewed_by", "reviewed_at")}))
        return sets

    # ---- who may ----

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Composition | None = None) -> bool:
        return False

    def has_review_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return any(request.user.has_perm(f"delivery.change_{name}") for name in ("composition", "delivery"))

    def has_change_permission(self, request: HttpRequest, obj: Composition | None = None) -> bool:
        return self.has_review_permission(request) and (obj is None or _waits(obj))

    def has_view_permission(self, request: HttpRequest, obj: Composition | None = None) -> bool:
        return super().has_view_permission(request, obj) or self.has_review_permission(request)

    # ---- one text ----

    def save_model(self, request: HttpRequest, obj: Composition, form: TextForm, change: bool) -> None:
        request.approved = composing.reword(obj.pk, form.cleaned_data["text"], request.user.get_username())

    def response_change(self, request: HttpRequest, obj: Composition) -> HttpResponse:
        if request.approved:
            messages.success(request, f"Approved: the mail to {obj.delivery.address} goes out.")
        else:
            messages.error(request, TOO_LATE)
        return go_to(request, reverse("admin:delivery_composition_changelist"))

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[UnfoldAction]:
        """As long as it waits."""
        found = Composition.objects.select_related("delivery").filter(pk=object_id).first()
        waits = found is not None and _waits(found)
        return super().get_actions_detail(request, object_id) if waits else []

    @action(
        description="Use the template",
        icon="draft",
        permissions=["review"],
        url_path="use-template",
        dialog={
            "title": "Send the template instead?",
            "description": "These words are not used. The mail goes out with the text of the step's template.",
            "form_class": None,
            "form_submit_text": "Use the template",
        },
    )
    def use_template(self, request: HttpRequest, form: object, object_id: str) -> HttpResponse:
        return self._decide(request, object_id, composing.use_template, "The template goes out instead.")

    @action(
        description="Reject",
        icon="block",
        variant=ActionVariant.DANGER,
        permissions=["review"],
        dialog={
            "title": "Send nothing?",
            "description": "This recipient gets no mail of this step: it counts as skipped. This cannot be undone.",
            "form_class": None,
            "form_submit_text": "Reject",
        },
    )
    def reject(self, request: HttpRequest, form: object, object_id: str) -> HttpResponse:
        return self._decide(request, object_id, composing.reject, "Rejected: nothing is sent.")

    def _decide(self, request: HttpRequest, object_id: str, deed: Deed, success: str) -> HttpResponse:
        if deed([int(object_id)], request.user.get_username()):
            messages.success(request, success)
        else:
            messages.error(request, TOO_LATE)
        return go_to(request, reverse("admin:delivery_composition_changelist"))

    # ---- many texts ----

    @admin.action(description="Approve selected", permissions=["review"])
    def approve_selected(self, request: HttpRequest, queryset: QuerySet[Composition]) -> None:
        self._decide_all(request, queryset, composing.approve, "approved")

    @admin.action(description="Use the template for selected", permissions=["review"])
    def use_template_selected(self, request: HttpRequest, queryset: QuerySet[Composition]) -> None:
        self._decide_all(request, queryset, composing.use_template, "sent as the template")

    @admin.action(description="Reject selected", permissions=["review"])
    def reject_selected(self, request: HttpRequest, queryset: QuerySet[Composition]) -> HttpResponse | None:
        ids = self._chosen(request, queryset)
        if not ids or CONFIRMED in request.POST:
            self._decide_all(request, queryset, composing.reject, "rejected")
            return None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Send nothing to these {len(ids):,}?",
            "ids": ids,
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "action": "reject_selected",
            "confirmed": CONFIRMED,
        }
        return TemplateResponse(request, "admin/delivery/composition/confirm.html", context)

    def _chosen(self, request: HttpRequest, chosen: QuerySet[Composition]) -> list[int]:
        ids = list(chosen.values_list("pk", flat=True)[: MOST + 1])
        return ids if len(ids) <= MOST else []

    def _decide_all(self, request: HttpRequest, chosen: QuerySet[Composition], deed: Deed, what: str) -> None:
        ids = self._chosen(request, chosen)
        if not ids:
            messages.error(request, f"Choose between 1 and {MOST:,} texts at a time.")
            return
        count = deed(ids, request.user.get_username())
        messages.success(request, f"{count:,} {what}.")
        if count < len(ids):
            messages.warning(request, f"{len(ids) - count:,} were no longer waiting for review.")

    # ---- what is shown ----

    @display(description="Recipient")
    def recipient(self, composition: Composition) -> str:
        delivery = composition.delivery
        return f"{delivery.name} <{delivery.address}>" if delivery.name else delivery.address

    @display(description="Run")
    def batch_label(self, composition: Composition) -> str:
        return composition.batch.label

    @display(description="Run")
    def batch_link(self, composition: Composition) -> SafeString:
        url = deliveries_url(composition.batch_id)
        return format_html('<a class="text-link" href="{}">{}</a>', url, composition.batch.label)

    @display(description="Deadline")
    def deadline_or_none(self, composition: Composition) -> str:
        return "none" if composition.deadline == NO_DEADLINE else shown_instant(composition.deadline)

    @display(description="Words")
    def beginning(self, composition: Composition) -> str:
        words = " ".join(composition.text.split())
        return words if len(words) <= SHOWN_WORDS else words[: SHOWN_WORDS - 1] + "…"

    @display(description="State")
    def state_now(self, composition: Composition) -> str:
        state = composition.get_state_display()
        if composition.state == CompositionState.REVIEW and not _waits(composition):
            return f"{state}, but its mail is {composition.delivery.get_state_display()}"
        return state

    @display(description="Subject")
    def subject(self, composition: Composition) -> str:
        return _rendered(composition, composition.delivery.message.subject)

    @display(description="Prompt")
    def asked(self, composition: Composition) -> str:
        asked = composition.delivery.message.composing or {}
        return _rendered(composition, asked.get("prompt", ""), line=False) or "-"

    @display(description="Composer")
    def composer(self, composition: Composition) -> str:
        return Engine.objects.filter(pk=composition.engine_id).values_list("name", flat=True).first() or "gone"

    @display(description="Last trouble")
    def trouble(self, composition: Composition) -> str:
        return composition.words or "none"

    @display(description="Data")
    def data(self, composition: Composition) -> SafeString:
        shown = json.dumps(composition.delivery.data, indent=2, ensure_ascii=False)
        return format_html('<pre class="outreach-source">{}</pre>', shown)


def _waits(composition: Composition) -> bool:
    """Whether there is still anything to decide."""
    return composition.state == CompositionState.REVIEW and composition.delivery.state == DeliveryState.WAITING


def _rendered(composition: Composition, source: str, *, line: bool = True) -> str:
    """A template of the message for this recipient, or what is wrong with it."""
    return rendered_part(source, composition.delivery.data, line=line)
