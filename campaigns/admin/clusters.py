"""The worker clusters: where they run, and which of them gives no sign of life any more."""

from datetime import datetime, timedelta

from django.contrib import admin
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import display

from campaigns.models import SILENT_AFTER, Cluster
from delivery.admin.instants import shown_instant
from delivery.admin.readonly import ReadOnly

IDLE_AFTER = timedelta(seconds=15)  # three beats; a minute would hide that nothing but the tick is done

STATE_COLOURS = {"working": "success", "idle": "info", "stopping": "warning", "silent": "danger"}


def state_of(cluster: Cluster, now: datetime) -> str:
    """One of `STATE_COLOURS`. Silence goes before everything that a cluster said of itself."""
    if now - cluster.beat_at > SILENT_AFTER:
        return "silent"
    if cluster.stopping:
        return "stopping"
    if cluster.worked_at and now - cluster.worked_at <= IDLE_AFTER:
        return "working"
    return "idle"


@admin.register(Cluster)
class ClusterAdmin(ReadOnly, ModelAdmin):
    list_display = ("host", "state_badge", "workers", "shown_beat", "shown_work", "restarts", "started_at")
    list_display_links = ("host",)
    empty_hint = "No cluster has reported yet. Start one on each host that is to send: manage.py runworkers"
    fields = ("host", "owner", "workers", "started_at", "beat_at", "worked_at", "restarts", "stopping")

    @display(description="State", label=STATE_COLOURS)
    def state_badge(self, cluster: Cluster) -> tuple[str, str]:
        state = state_of(cluster, timezone.now())
        return state, f"silent since {shown_instant(cluster.beat_at)}" if state == "silent" else state

    @display(description="Last beat", ordering="beat_at")
    def shown_beat(self, cluster: Cluster) -> str:
        return shown_instant(cluster.beat_at)

    @display(description="Last work", ordering="worked_at")
    def shown_work(self, cluster: Cluster) -> str:
        return shown_instant(cluster.worked_at)
