"""Webhooks: who is told what happens here, set up and tested.

A secret is shown once, on the page that answers its making, and is in no message: those travel in a cookie.
"""

from copy import copy

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget

from campaigns.callbacks import names, signing, webhooks
from campaigns.callbacks.sending import ping
from campaigns.exceptions import CampaignError
from campaigns.models import CallbackState, Webhook, WebhookEvent
from delivery.admin.instants import shown_instant
from delivery.admin.redirects import go_to
from delivery.exceptions import DeliveryError

STATE_COLOURS = {"on": "success", "failing": "warning", "off": "default", "switched off": "danger"}
LISTED_EVENTS = 50


class EventsField(forms.CharField):
    """Names of events, one a line."""

    widget = UnfoldAdminTextareaWidget({"rows": 6, "spellcheck": "false"})

    def prepare_value(self, value: object) -> object:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: str | None) -> list[str]:
        return super().to_python(value).split()


class WebhookForm(forms.ModelForm):
    """What is wrong is said by `campaigns.callbacks.webhooks`, as over the API."""

    events = EventsField(help_text=f"One a line. There is: {', '.join(names.ALL)}. run.* stands for all of a kind.")

    class Meta:
        model = Webhook
        fields = ("name", "url", "events", "enabled")

    def clean(self) -> dict[str, object]:
        cleaned = super().clean()
        if not self.errors:
            judged = copy(self.instance)
            for name in ("name", "url", "events"):
                setattr(judged, name, cleaned[name])
            try:
                webhooks.check(judged)
            except ValidationError as refusal:
                self.add_error(None, refusal)
        return cleaned


@admin.register(Webhook)
class WebhookAdmin(ModelAdmin):
    form = WebhookForm
    list_display = ("name", "url", "events_words", "state_badge")
    list_filter = ("enabled",)
    search_fields = ("name", "url")
    list_per_page = 50
    empty_hint = (
        "A webhook is told what happens here: runs that end, deliveries that are refused, engines that fail. What a "
        "single run is to tell, its callback_url says."
    )
    readonly_fields = ("state_now", "waiting", "history")
    actions_list = ("run_secret",)
    actions_detail = ("send_ping", "replace_secret")

    def get_fieldsets(self, request: HttpRequest, obj: Webhook | None = None) -> list:
        sets = [(None, {"fields": ("name", "url", "events", "enabled")})]
        if obj:
            sets.append(("State", {"fields": ("state_now", "waiting")}))
            sets.append(("History", {"fields": ("history",)}))
        return sets

    # ---- what is done ----

    def save_model(self, request: HttpRequest, obj: Webhook, form: WebhookForm, change: bool) -> None:
        if change:
            webhooks.change(obj, request.user.get_username())
        else:
            request.new_secret = webhooks.add(obj, request.user.get_username())

    def response_add(self, request: HttpRequest, obj: Webhook, post_url_continue: str | None = None) -> HttpResponse:
        return self._secret_page(request, obj, [request.new_secret])

    def delete_model(self, request: HttpRequest, obj: Webhook) -> None:
        webhooks.remove(obj, request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        for webhook in queryset:
            self.delete_model(request, webhook)

    @action(
        description="Send a ping",
        icon="network_ping",
        permissions=["change"],
        url_path="ping",
        dialog={
            "title": "Send a ping?",
            "description": "It is told that it is there, now and once. This takes up to 15 seconds.",
            "form_class": None,
            "form_submit_text": "Send",
        },
    )
    def send_ping(self, request: HttpRequest, form: object, object_id: str) -> HttpResponse:
        webhook = self._webhook(request, object_id)
        try:
            callback = ping(webhook)
        except (CampaignError, DeliveryError) as refusal:
            messages.error(request, str(refusal))
        else:
            attempt = callback.tries.get()
            if callback.state == CallbackState.DELIVERED:
                messages.success(request, f"It took the ping: {attempt.status}, in {attempt.seconds:.2f} s.")
            else:
                messages.error(request, f"It did not take the ping: {callback.words}")
        return go_to(request, reverse("admin:campaigns_webhook_change", args=[webhook.pk]))

    @action(description="Replace the secret", icon="key", permissions=["change"], url_path="secret")
    def replace_secret(self, request: HttpRequest, object_id: str) -> HttpResponse:
        webhook = self._webhook(request, object_id)
        if request.method != "POST":
            return self._secret_page(request, webhook, [])
        try:
            secret = webhooks.rotate(webhook, request.user.get_username())
        except DeliveryError as refusal:
            messages.error(request, str(refusal))
            return go_to(request, reverse("admin:campaigns_webhook_change", args=[webhook.pk]))
        return self._secret_page(request, webhook, [secret])

    @action(description="Secret of runs' own callbacks", icon="key", permissions=["change"], url_path="run-secret")
    def run_secret(self, request: HttpRequest) -> HttpResponse:
        return self._secret_page(request, None, signing.installation_secrets())

    def _secret_page(self, request: HttpRequest, webhook: Webhook | None, secrets: list[str]) -> HttpResponse:
        ids = [webhook.pk] if webhook else []
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Secret of {webhook}" if webhook else "What signs the callbacks of runs",
            "webhook": webhook,
            "secrets": secrets,
            "back": reverse(f"admin:campaigns_webhook_{'change' if webhook else 'changelist'}", args=ids),
        }
        response = TemplateResponse(request, "admin/campaigns/webhook/secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def _webhook(self, request: HttpRequest, object_id: str) -> Webhook:
        webhook = self.get_object(request, object_id)
        if webhook is None:
            raise Http404
        if not self.has_change_permission(request, webhook):
            raise PermissionDenied
        return webhook

    # ---- what is shown ----

    @display(description="Is told of")
    def events_words(self, webhook: Webhook) -> str:
        return ", ".join(webhook.events)

    @display(description="State", label=STATE_COLOURS)
    def state_badge(self, webhook: Webhook) -> str:
        if not webhook.enabled:
            return "switched off" if webhook.switched_off_why else "off"
        return "failing" if webhook.failing_since else "on"

    @display(description="State")
    def state_now(self, webhook: Webhook) -> str:
        if not webhook.enabled:
            return webhook.switched_off_why or "off"
        if webhook.failing_since:
            return f"failing since {shown_instant(webhook.failing_since)}: {webhook.failures} attempts"
        return "on"

    @display(description="Callbacks")
    def waiting(self, webhook: Webhook) -> SafeString:
        url = reverse("admin:campaigns_callback_changelist") + f"?webhook={webhook.pk}"
        return format_html('<a class="text-link" href="{}">All that it was told</a>', url)

    @display(description="What was done")
    def history(self, webhook: Webhook) -> SafeString | str:
        events = webhook.history.order_by("-id")[:LISTED_EVENTS]
        lines = format_html_join("", "<li><time>{}</time> {}{}{}</li>", map(_words, events))
        return format_html('<ol class="outreach-timeline">{}</ol>', lines) if lines else "nothing yet"


def _words(event: WebhookEvent) -> tuple[str, ...]:
    by, why = f" by {event.by}" if event.by else "", f": {event.why}" if event.why else ""
    return shown_instant(event.at), event.what, by, why
