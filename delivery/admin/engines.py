"""Engines: their settings, in the words of their kind, and what the workers know of them at this moment."""

from collections.abc import Callable

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets, unquote
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import now
from unfold.admin import ModelAdmin, TabularInline
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from delivery.admin import engine_words as words
from delivery.admin.conditions import AWAY, LISTED, ON_ITS_PAGE, ShowsConditions, state_fields
from delivery.admin.engine_form import SAVE_ANYWAY, EngineForm, engine_form, option_fields, secret_fields
from delivery.admin.hold_form import HoldForm, ReleaseForm
from delivery.admin.redirects import go_to
from delivery.checking import PATIENCE, check
from delivery.engine_changes import Snapshot, record
from delivery.engines import KINDS, EngineKind
from delivery.engines.base import Finding
from delivery.exceptions import IllegalHold
from delivery.hold import hold, release
from delivery.models import Engine, EngineLimit

KEPT_ENCRYPTED = "Kept encrypted, and never shown again."
ABOUT_THE_CIRCUIT = (
    "An engine that is down or refuses the login fails one mail after the other. Then its circuit opens: nothing goes "
    "through it, and other engines of its pools take over. A recipient's fault never counts here."
)
ABOUT_A_COMPOSERS_CIRCUIT = (
    "A composer that is down or refuses the key fails one text after the other. Then its circuit opens: it is not "
    "asked, and the mails wait for their texts; when that lasts, they go with the text of their template."
)
ABOUT_THE_WARMUP = (
    "Receivers distrust a sender that begins with much. A warm-up allows few mails in 24 hours on the first day and "
    "more on each day after it, beside the limits below. Empty: there is none."
)
LISTED_EVENTS = 50
ABOUT_THE_STATE = "What the workers know of it at this moment."


class LimitForm(forms.ModelForm):
    """Says what the columns of a limit are."""

    class Meta:
        labels = {"quantity": "At most", "counts": "Of", "period": "In each", "burst": "At once"}
        help_texts = {"quantity": "What may pass in each period, as a steady flow."}


class LimitInline(TabularInline):
    model = EngineLimit
    form = LimitForm
    verbose_name = "limit"
    verbose_name_plural = "limits"
    fields = ("quantity", "counts", "period", "burst", "meaning")
    readonly_fields = ("meaning",)
    extra = 0
    hide_title = True

    @display(description="Comes to", empty_value="shown when saved")
    def meaning(self, limit: EngineLimit) -> str | None:
        return words.limit_means(limit) or None


@admin.register(Engine)
class EngineAdmin(ShowsConditions, ModelAdmin):
    """An engine's kind is chosen first, on a page of its own, and stays."""

    list_display = ("name", "kind_label", *LISTED, "in_use")
    list_filter = ("enabled",)
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    readonly_fields = ("kind_label", "plain_options", "warmup_now", "use_now", "history", *ON_ITS_PAGE, *AWAY)
    empty_hint = (
        "An engine is one way out, such as an SMTP server. Begin with the sandbox: it keeps every mail and sends none."
    )
    inlines = (LimitInline,)
    actions_detail = ("hold", "release", "check_connection")

    # ---- the kind ----

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict | None = None) -> HttpResponse:
        if _kind(request, None) is None and self.has_add_permission(request):
            return self._choose_kind(request)
        return super().add_view(request, form_url, extra_context)

    def _choose_kind(self, request: HttpRequest) -> HttpResponse:
        offered = {"Sends mails": [], "Writes mails": []}
        for kind in KINDS.values():
            query = request.GET.copy()
            query["kind"] = kind.slug
            offered["Writes mails" if kind.composes else "Sends mails"].append((f"?{query.urlencode()}", kind))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Add engine: which kind?",
            "kinds": offered.items(),
            "is_popup": "_popup" in request.GET,
        }
        return TemplateResponse(request, "admin/delivery/engine/choose_kind.html", context)

    # ---- the form ----

    def get_form(
        self, request: HttpRequest, obj: Engine | None = None, change: bool = False, **kwargs: object
    ) -> type[ModelForm]:
        if (kind := _kind(request, obj)) is not None:
            kwargs["form"] = engine_form(kind, _findings(request))
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Engine | None = None) -> list:
        kind = _kind(request, obj)
        may_edit = self._may_edit(request, obj)
        settings = option_fields(kind) if kind and may_edit else ["plain_options"]
        secrets = secret_fields(kind) if kind and may_edit else []
        sets = [(None, {"fields": ["name", "slug", "kind_label", "enabled"]})]
        if any(finding.certain for finding in _findings(request)):
            sets.insert(0, (None, {"fields": [SAVE_ANYWAY]}))
        if obj:
            sets.append(("State", {"fields": ["use_now", *state_fields(obj)], "description": ABOUT_THE_STATE}))
        if settings:
            sets.append(("Settings", {"fields": settings}))
        if secrets:
            sets.append(("Credentials", {"fields": secrets, "description": KEPT_ENCRYPTED}))
        composes = kind is not None and kind.composes
        if not composes:
            sets.append(("Who may send through it", {"fields": ["sender_domains"]}))
        circuit = ["fault_threshold", "cool_off_seconds"]
        about = ABOUT_A_COMPOSERS_CIRCUIT if composes else ABOUT_THE_CIRCUIT
        sets.append(("Circuit breaker", {"fields": circuit, "description": about}))
        if not composes:
            warmup = ["warmup_from", "warmup_caps", "warmup_growth", "warmup_target"]
            if obj:
                warmup.insert(0, "warmup_now")
            sets.append(("Warm-up", {"fields": warmup, "description": ABOUT_THE_WARMUP}))
        if obj:
            sets.append(("History", {"fields": ["history"]}))
        return sets

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: dict | None = None
    ) -> HttpResponse:
        if request.method == "POST":
            request.findings = self._asked(request, object_id)
        return super().changeform_view(request, object_id, form_url, extra_context)

    def _asked(self, request: HttpRequest, object_id: str | None) -> list[Finding]:
        """What the provider says of a valid form, where it was not asked the same before. Found out here because what
        comes next is one transaction: on SQLite nobody else could write while the provider takes its time."""
        engine = self.get_object(request, unquote(object_id)) if object_id else None
        if (object_id and engine is None) or _kind(request, engine) is None or not self._may_edit(request, engine):
            return []
        fields = flatten_fieldsets(self.get_fieldsets(request, engine))
        form_class = self.get_form(request, engine, change=engine is not None, fields=fields)
        form = form_class(request.POST, request.FILES, instance=engine)
        return check(form.instance) if form.is_valid() and form.is_new_to_the_provider else []

    def render_change_form(self, request: HttpRequest, context: dict, *args: object, **kwargs: object) -> HttpResponse:
        form = context["adminform"].form
        if request.method == "POST" and isinstance(form, EngineForm):
            form.want_secrets_again()
        return super().render_change_form(request, context, *args, **kwargs)

    def _may_edit(self, request: HttpRequest, engine: Engine | None) -> bool:
        return self.has_change_permission(request, engine) if engine else self.has_add_permission(request)

    def save_model(self, request: HttpRequest, obj: Engine, form: ModelForm, change: bool) -> None:
        request.engine_before = Snapshot(obj.pk) if change else None
        super().save_model(request, obj, form, change)
        for finding in _findings(request):
            how = "Saved although the provider objects" if finding.certain else "Saved; the check found"
            messages.warning(request, f"{how}: {finding.words}")

    def save_related(self, request: HttpRequest, form: ModelForm, formsets: list, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        record(form.instance, request.engine_before, request.user.get_username())

    # ---- a hold ----

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[UnfoldAction]:
        """Either to hold it or to release it, whichever it is not."""
        engine = Engine.objects.filter(pk=unquote(str(object_id))).first()
        other = "hold" if engine is not None and engine.is_held(now()) else "release"
        shown = super().get_actions_detail(request, object_id)
        return [each for each in shown if each.action_name != f"delivery_engine_{other}"]

    @action(
        description="Hold",
        icon="pause",
        permissions=["hold"],
        dialog={
            "title": "Hold this engine?",
            "description": "Nothing goes through it until it is released; other engines of its pools take over. What "
            "is being handed over at this moment still goes out.",
            "form_class": HoldForm,
            "form_submit_text": "Hold",
        },
    )
    def hold(self, request: HttpRequest, form: HoldForm, object_id: str) -> HttpResponse:
        engine, by = self._held_or_not(request, object_id), request.user.get_username()
        return _done(request, engine, lambda: hold(engine, by, form.cleaned_data["why"], form.until(now())), "held")

    @action(
        description="Release",
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        permissions=["hold"],
        dialog={
            "title": "Release this engine?",
            "description": "Mails go through it again.",
            "form_class": ReleaseForm,
            "form_submit_text": "Release",
        },
    )
    def release(self, request: HttpRequest, form: ReleaseForm, object_id: str) -> HttpResponse:
        engine, by = self._held_or_not(request, object_id), request.user.get_username()
        return _done(request, engine, lambda: release(engine, by, form.cleaned_data["why"]), "released")

    def has_hold_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return any(request.user.has_perm(f"delivery.{deed}_engine") for deed in ("hold", "change"))

    def _held_or_not(self, request: HttpRequest, object_id: str) -> Engine:
        engine = self.get_object(request, unquote(object_id))
        if engine is None:
            raise Http404
        return engine

    # ---- the connection ----

    @action(
        description="Check connection",
        icon="network_check",
        permissions=["change"],
        url_path="check",
        dialog={
            "title": "Check the connection?",
            "description": "The provider is asked with the stored settings. No mail is sent, nothing is changed. "
            f"This takes up to {PATIENCE:g} seconds.",
            "form_class": None,
            "form_submit_text": "Check",
        },
    )
    def check_connection(self, request: HttpRequest, form: object, object_id: str) -> HttpResponse:
        engine = self.get_object(request, unquote(object_id))
        if engine is None:
            raise Http404
        findings = check(engine)
        for finding in findings:
            messages.add_message(request, messages.ERROR if finding.certain else messages.WARNING, finding.words)
        if not findings:
            messages.success(request, "Nothing is wrong with the settings, as far as shows without sending a mail.")
        return go_to(request, reverse("admin:delivery_engine_change", args=[engine.pk]))

    # ---- what is shown ----

    @display(description="In use", label=words.USE_COLOURS)
    def in_use(self, engine: Engine) -> tuple[str, str]:
        return words.use(engine, now())

    @display(description="In use")
    def use_now(self, engine: Engine) -> str:
        return words.use(engine, now())[1]

    @display(description="What people did")
    def history(self, engine: Engine) -> SafeString | str:
        events = engine.events.order_by("-id")[:LISTED_EVENTS]
        lines = format_html_join("", "<li><time>{}</time> {}</li>", [words.event(each) for each in events])
        return format_html('<ol class="outreach-timeline">{}</ol>', lines) if lines else "nothing yet"

    @display(description="Kind")
    def kind_label(self, engine: Engine) -> str:
        if engine.kind not in KINDS:
            return f"{engine.kind} (unknown)"
        kind = KINDS[engine.kind]
        return f"{kind.label} (writes mails)" if kind.composes else kind.label

    @display(description="Settings")
    def plain_options(self, engine: Engine) -> str:
        return "\n".join(f"{name}: {value}" for name, value in engine.options.items()) or "none"

    @display(description="Now")
    def warmup_now(self, engine: Engine) -> str:
        return words.warmup_means(engine.ramp, now())


def _done(request: HttpRequest, engine: Engine, deed: Callable[[], None], what: str) -> HttpResponse:
    try:
        deed()
    except IllegalHold as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, f"The engine is {what}.")
    return go_to(request, reverse("admin:delivery_engine_change", args=[engine.pk]))


def _findings(request: HttpRequest) -> list[Finding]:
    """What the provider said of the form that this request brought."""
    return getattr(request, "findings", [])


def _kind(request: HttpRequest, engine: Engine | None) -> EngineKind | None:
    return KINDS.get(engine.kind if engine else request.GET.get("kind", ""))
