"""Pools: engines in order of preference, how one of them is chosen, and how hard it is tried."""

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from delivery.admin import pool_words as words
from delivery.core.failover import Strategy
from delivery.models import Pool, PoolMember, SpecialRule
from delivery.shared import SharedAway, shared

RETRY_LABELS = {
    "max_attempts": "Tries",
    "backoff": "Waits between tries",
    "first_wait_seconds": "First wait (seconds)",
    "factor": "Growth",
    "longest_wait_seconds": "Longest wait (seconds)",
    "jitter_percent": "Chance (± percent)",
}
RETRY_FIELDS = tuple(RETRY_LABELS)
ABOUT_TRYING = (
    "A mail that could not be handed over for now is tried again, by another engine of the pool where there is one. "
    "Trouble with its own rule, below, follows that instead."
)


class PoolForm(forms.ModelForm):
    """Says what the numbers count."""

    class Meta:
        labels = RETRY_LABELS | {"max_age_hours": "Give up after (hours)"}


class SpecialRuleForm(forms.ModelForm):
    """The same columns, in a table."""

    class Meta:
        labels = RETRY_LABELS | {
            "trouble": "When",
            "backoff": "Waits",
            "first_wait_seconds": "First wait",
            "longest_wait_seconds": "Longest wait",
            "jitter_percent": "± %",
        }
        help_texts = {
            "first_wait_seconds": "Seconds before the second try.",
            "longest_wait_seconds": "Seconds; no wait is longer than this.",
        }


class MemberInline(TabularInline):
    model = PoolMember
    verbose_name = "engine"
    verbose_name_plural = "engines, in order of preference"
    autocomplete_fields = ("engine",)
    ordering_field = "position"
    hide_title = True
    fields = ("engine", "weight", "position")
    extra = 0
    min_num = 1


class SpecialRuleInline(TabularInline):
    model = SpecialRule
    form = SpecialRuleForm
    verbose_name = "rule"
    verbose_name_plural = "other rules for some kinds of trouble"
    hide_title = True
    fields = ("trouble", *RETRY_FIELDS)
    extra = 0
    max_num = 3


@admin.register(Pool)
class PoolAdmin(ModelAdmin):
    form = PoolForm
    list_display = ("name", "strategy_name", "engines_in_order", "tries")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    readonly_fields = ("current_engine", "waits_now")
    empty_hint = (
        "A pool is a list of engines: the first one sends, the next takes over when it fails. Add engines first."
    )
    inlines = (MemberInline, SpecialRuleInline)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).prefetch_related("members__engine")

    def get_fieldsets(self, request: HttpRequest, obj: Pool | None = None) -> list:
        choosing = ["strategy"]
        if obj and obj.strategy == Strategy.STICKY:
            choosing.append("current_engine")
        trying = [*RETRY_FIELDS, "max_age_hours"]
        if obj:
            trying.append("waits_now")
        return [
            (None, {"fields": ["name", "slug"]}),
            ("How an engine is chosen", {"fields": choosing}),
            ("How hard to try", {"fields": trying, "description": ABOUT_TRYING}),
        ]

    @display(description="Strategy", ordering="strategy")
    def strategy_name(self, pool: Pool) -> str:
        return pool.strategy

    @display(description="Engines")
    def engines_in_order(self, pool: Pool) -> str:
        return words.engines_in_order(pool.members.all(), pool.strategy) or "none yet"

    @display(description="Tries", ordering="max_attempts")
    def tries(self, pool: Pool) -> int:
        return pool.max_attempts

    @display(description="Now with")
    def current_engine(self, pool: Pool) -> str:
        try:
            current = shared().current(pool.pk)
        except SharedAway as away:
            return f"not known now: {away}"
        if current is None:
            return "none yet: the first that is able"
        names = {member.engine_id: member.engine.name for member in pool.members.all()}
        return names.get(current, "an engine that is not in this pool any more")

    @display(description="Waits come to")
    def waits_now(self, pool: Pool) -> str:
        return words.waits(pool.rule)
