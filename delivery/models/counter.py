"""What every worker has counted, for whoever watches: added up over processes, hosts and restarts."""

from django.db import models


class Counter(models.Model):
    """One series of a metric. Workers add what they counted every few seconds; shards keep them out of each other's
    way. `labels` is JSON with sorted keys, so that the same series is the same text."""

    name = models.CharField(max_length=100)
    labels = models.CharField(max_length=300, default="{}")
    shard = models.SmallIntegerField()
    value = models.FloatField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["name", "labels", "shard"], name="counter_cell")]

    def __str__(self) -> str:
        return f"{self.name} {self.labels}: {self.value}"
