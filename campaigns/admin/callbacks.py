"""Callbacks: what was told, with every attempt; the dead ones are sent again."""

import json

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display

from campaigns.audiences.http_url import without_query
from campaigns.callbacks import names
from campaigns.callbacks.outbox import replay
from campaigns.callbacks.sending import shown
from campaigns.exceptions import CampaignError
from campaigns.models import Callback, CallbackState, Webhook
from delivery.admin.instants import shown_instant
from delivery.admin.keyset import KeysetList
from delivery.admin.readonly import ReadOnly
from delivery.admin.redirects import go_to

COLOURS = {"delivered": "success", "waiting": "info", "dead": "danger"}


class ByColumn(admin.SimpleListFilter):
    """Narrows by a column whose values need not be looked for in the table."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Callback]) -> QuerySet[Callback]:
        known = {value for value, _ in self.lookup_choices}
        return queryset.filter(**{self.parameter_name: self.value()}) if self.value() in known else queryset


class TypeFilter(ByColumn):
    title = parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [(name, name) for name in names.TYPES]


class WebhookFilter(ByColumn):
    title = parameter_name = "webhook"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> list[tuple[str, str]]:
        return [(str(pk), name) for pk, name in Webhook.objects.values_list("pk", "name")]


@admin.register(Callback)
class CallbackAdmin(KeysetList, ReadOnly, ModelAdmin):
    list_display = ("created_at", "type", "state_badge", "to_whom", "run_link", "attempts", "next_words", "words")
    list_display_links = ("created_at", "type")
    list_filter = ("state", TypeFilter, WebhookFilter)
    list_select_related = ("webhook",)
    empty_hint = (
        "Nothing was told to anybody. A run tells its end to the callback_url that it was started with; webhooks are "
        "told what they ask for."
    )
    change_form_template = "admin/campaigns/callback/change_form.html"
    fields = ("type", "state_badge", "to_whom", "address", "run_link", "key", "created_at", "next_words", "words")
    actions = ("replay_selected",)
    actions_detail = ("replay_this",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Callback]:
        return super().get_queryset(request).defer("body")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "run__id__exact" or super().lookup_allowed(lookup, value, request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict | None = None
    ) -> HttpResponse:
        callback = self.get_object(request, object_id)
        page = _page_of(callback) if callback and self.has_view_permission(request, callback) else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **page})

    # ---- sent again ----

    def has_replay_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("campaigns.change_webhook")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[UnfoldAction]:
        """Only a dead letter is sent again."""
        dead = Callback.objects.filter(pk=object_id, state=CallbackState.DEAD).exists()
        return super().get_actions_detail(request, object_id) if dead else []

    @admin.action(description="Send dead ones again", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[Callback]) -> None:
        _replay(request, list(queryset.values_list("pk", flat=True)))

    @action(
        description="Send again",
        icon="replay",
        permissions=["replay"],
        url_path="replay",
        dialog={
            "title": "Send this again?",
            "description": "It is tried for another 24 hours, under its old id.",
            "form_class": None,
            "form_submit_text": "Send again",
        },
    )
    def replay_this(self, request: HttpRequest, form: object, object_id: str) -> HttpResponse:
        _replay(request, [int(object_id)])
        return go_to(request, reverse("admin:campaigns_callback_change", args=[object_id]))

    # ---- what is shown ----

    @display(description="State", label=COLOURS)
    def state_badge(self, callback: Callback) -> tuple[str, str]:
        return callback.state, callback.get_state_display()

    @display(description="To")
    def to_whom(self, callback: Callback) -> str:
        if callback.webhook_id is None:
            return "the run's callback_url"
        return str(callback.webhook) if callback.webhook else "a webhook that was deleted"

    @display(description="URL")
    def address(self, callback: Callback) -> str:
        return without_query(callback.url)

    @display(description="Run")
    def run_link(self, callback: Callback) -> SafeString | str:
        if callback.run_id is None:
            return "-"
        url = reverse("admin:campaigns_run_change", args=[callback.run_id])
        return format_html('<a class="text-link" href="{}">Run {}</a>', url, callback.run_id)

    @display(description="Next attempt")
    def next_words(self, callback: Callback) -> str:
        if callback.state != CallbackState.WAITING:
            return "-"
        return shown_instant(callback.next_at) if callback.next_at else "when its webhook is on"


def _replay(request: HttpRequest, ids: list[int]) -> None:
    try:
        count = replay(ids, request.user.get_username())
    except CampaignError as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, f"{count:,} on the way again.")


def _page_of(callback: Callback) -> dict[str, object]:
    return {"tries": callback.tries.all(), "payload": json.dumps(shown(callback.body), indent=2, ensure_ascii=False)}
