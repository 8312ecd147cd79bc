"""Engines: their settings, in the words of their kind, and what the workers know of them at this moment."""

from django.contrib import admin
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from delivery.admin.engine_form import engine_form, option_fields, secret_fields
from delivery.admin.instants import shown_instant
from delivery.engines import KINDS, EngineKind
from delivery.models import Engine, EngineLimit, EngineState

CIRCUIT_COLOURS = {"closed": "success", "half-open": "warning", "open": "danger"}
CIRCUIT_WORDS = {"closed": "closed", "half_open": "half-open", "open": "open"}


class LimitInline(TabularInline):
    model = EngineLimit
    verbose_name = "limit"
    verbose_name_plural = "limits"
    fields = ("quantity", "period", "burst")
    extra = 0
    hide_title = True


@admin.register(Engine)
class EngineAdmin(ModelAdmin):
    """An engine's kind is chosen first, on a page of its own, and stays."""

    list_display = ("name", "kind_label", "circuit", "pace", "paused_until", "enabled")
    list_filter = ("enabled",)
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    readonly_fields = (
        "kind_label",
        "plain_options",
        "circuit",
        "faults",
        "probe_at",
        "pace",
        "paused_until",
        "last_error",
        "last_error_at",
    )
    empty_hint = (
        "An engine is one way out, such as an SMTP server. Begin with the sandbox: it keeps every mail and sends none."
    )
    inlines = (LimitInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).select_related("state")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict | None = None) -> HttpResponse:
        if _kind(request, None) is None and self.has_add_permission(request):
            return self._choose_kind(request)
        return super().add_view(request, form_url, extra_context)

    def _choose_kind(self, request: HttpRequest) -> HttpResponse:
        links = []
        for kind in KINDS.values():
            query = request.GET.copy()
            query["kind"] = kind.slug
            links.append((f"?{query.urlencode()}", kind.label))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Add engine: which kind?",
            "kinds": links,
            "is_popup": "_popup" in request.GET,
        }
        return TemplateResponse(request, "admin/delivery/engine/choose_kind.html", context)

    def get_form(
        self, request: HttpRequest, obj: Engine | None = None, change: bool = False, **kwargs: object
    ) -> type[ModelForm]:
        if (kind := _kind(request, obj)) is not None:
            kwargs["form"] = engine_form(kind)
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Engine | None = None) -> list:
        kind = _kind(request, obj)
        may_edit = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        settings = option_fields(kind) if kind and may_edit else ["plain_options"]
        secrets = secret_fields(kind) if kind and may_edit else []
        sets = [(None, {"fields": ["name", "slug", "kind_label", "enabled"]})]
        if settings:
            sets.append(("Settings", {"fields": settings}))
        if secrets:
            sets.append(("Credentials", {"fields": secrets, "description": "Kept encrypted, and never shown again."}))
        sets.append(("Who may send through it", {"fields": ["sender_domains"]}))
        if obj:
            state = ["circuit", "faults", "probe_at", "pace", "paused_until", "last_error", "last_error_at"]
            sets.append(("State", {"fields": state}))
        return sets

    @display(description="Kind")
    def kind_label(self, engine: Engine) -> str:
        return KINDS[engine.kind].label if engine.kind in KINDS else f"{engine.kind} (unknown)"

    @display(description="Settings")
    def plain_options(self, engine: Engine) -> str:
        return "\n".join(f"{name}: {value}" for name, value in engine.options.items()) or "none"

    @display(description="Circuit", label=CIRCUIT_COLOURS)
    def circuit(self, engine: Engine) -> str:
        return CIRCUIT_WORDS[state_of(engine).circuit]

    @display(description="Faults in a row")
    def faults(self, engine: Engine) -> int:
        return state_of(engine).faults

    @display(description="Next probe")
    def probe_at(self, engine: Engine) -> str:
        return shown_instant(state_of(engine).probe_at)

    @display(description="Pace")
    def pace(self, engine: Engine) -> str:
        return f"{state_of(engine).pace:.0%}"

    @display(description="Paused until")
    def paused_until(self, engine: Engine) -> str:
        return shown_instant(state_of(engine).paused_until)

    @display(description="Last error")
    def last_error(self, engine: Engine) -> str:
        return state_of(engine).last_error or "none"

    @display(description="Last error at")
    def last_error_at(self, engine: Engine) -> str:
        return shown_instant(state_of(engine).last_error_at)


def state_of(engine: Engine) -> EngineState:
    """What the workers know of an engine; as if nothing had ever happened while they know nothing."""
    try:
        return engine.state
    except EngineState.DoesNotExist:
        return EngineState(engine=engine)


def _kind(request: HttpRequest, engine: Engine | None) -> EngineKind | None:
    return KINDS.get(engine.kind if engine else request.GET.get("kind", ""))
