"""Campaigns' tables, one subject per file. Imports run downwards only: template, audience, workflow, run, schedule."""

from campaigns.models.audience import (
    Audience,
    AudienceBookmark,
    AudienceKind,
    Contact,
    ContactList,
    Upload,
    UploadChunk,
)
from campaigns.models.cluster import SILENT_AFTER, Cluster
from campaigns.models.run import ProblemKind, Run, RunEvent, RunProblem, RunState, Trigger
from campaigns.models.schedule import Schedule, ScheduleEvent, ScheduleKind, Slot, SlotOutcome
from campaigns.models.template import Template, TemplateVersion
from campaigns.models.workflow import OnFailed, OnLate, RenderErrorPolicy, Start, Step, Workflow

__all__ = [
    "SILENT_AFTER",
    "Audience",
    "AudienceBookmark",
    "AudienceKind",
    "Cluster",
    "Contact",
    "ContactList",
    "OnFailed",
    "OnLate",
    "ProblemKind",
    "RenderErrorPolicy",
    "Run",
    "RunEvent",
    "RunProblem",
    "RunState",
    "Schedule",
    "ScheduleEvent",
    "ScheduleKind",
    "Slot",
    "SlotOutcome",
    "Start",
    "Step",
    "Template",
    "TemplateVersion",
    "Trigger",
    "Upload",
    "UploadChunk",
    "Workflow",
]
