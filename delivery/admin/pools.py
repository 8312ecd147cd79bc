"""Pools: engines in order of preference."""

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from delivery.models import Pool, PoolMember


class PoolForm(forms.ModelForm):
    """Says what the numbers count."""

    class Meta:
        labels = {
            "max_attempts": "Tries",
            "first_wait_seconds": "Wait before the second try (seconds)",
            "max_age_hours": "Give up after (hours)",
        }


class MemberInline(TabularInline):
    model = PoolMember
    verbose_name = "engine"
    verbose_name_plural = "engines, in order of preference"
    autocomplete_fields = ("engine",)
    ordering_field = "position"
    hide_title = True
    fields = ("engine", "position")
    extra = 0
    min_num = 1


@admin.register(Pool)
class PoolAdmin(ModelAdmin):
    form = PoolForm
    list_display = ("name", "engines_in_order", "max_attempts")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    empty_hint = (
        "A pool is a list of engines: the first one sends, the next takes over when it fails. Add engines first."
    )
    inlines = (MemberInline,)
    fieldsets = (
        (None, {"fields": ("name", "slug")}),
        ("How hard to try", {"fields": ("max_attempts", "first_wait_seconds", "max_age_hours")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).prefetch_related("members__engine")

    @display(description="Engines")
    def engines_in_order(self, pool: Pool) -> str:
        return " → ".join(member.engine.name for member in pool.members.all()) or "none yet"
