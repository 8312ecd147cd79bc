"""The worker clusters there are: one row each, kept fresh by the cluster's head."""

from datetime import datetime, timedelta

from django.db import models

SILENT_AFTER = timedelta(seconds=30)  # several heartbeats


class ClusterQuerySet(models.QuerySet):
    def alive(self, now: datetime) -> "ClusterQuerySet":
        """Those whose head was heard of lately, and that are not about to stop."""
        return self.filter(beat_at__gt=now - SILENT_AFTER, stopping=False)


class Cluster(models.Model):
    """A heartbeat. The head writes `beat_at` every few seconds; `worked_at` is the last sign that a worker process of
    it gave, so that a cluster whose head lives and whose workers stand still is seen, too."""

    owner = models.CharField(max_length=200, unique=True, help_text="The head's process, by host, id and start time.")
    host = models.CharField(max_length=100)
    workers = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
    worked_at = models.DateTimeField(null=True)
    restarts = models.PositiveIntegerField(default=0, help_text="How often its processes were started anew.")
    stopping = models.BooleanField(default=False)

    objects = ClusterQuerySet.as_manager()

    class Meta:
        ordering = ["host", "id"]

    def __str__(self) -> str:
        return f"{self.host}: {self.workers} workers"
