"""What of each of the four roles was given out already."""

from django.contrib.auth.models import Group
from django.db import models


class Role(models.Model):
    """A group that came with the installation. Written by `outreach.access.roles` alone."""

    name = models.CharField(max_length=20, primary_key=True)
    # Followed when somebody renames it, and not made again when somebody deleted it.
    group = models.OneToOneField(Group, on_delete=models.SET_NULL, null=True, related_name="+")
    given = models.JSONField(default=list, help_text="Every permission that it ever got by itself.")

    def __str__(self) -> str:
        return self.name
