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
from campaigns.models.callback import (
    Callback,
    CallbackAttempt,
    CallbackSender,
    CallbackState,
    Webhook,
    WebhookEvent,
)
from campaigns.models.cluster import SILENT_AFTER, Cluster
from campaigns.models.contact_import import (
    UNDER_WAY,
    ContactChange,
    ContactImport,
    ImportChunk,
    ImportPolicy,
    ImportProblem,
    ImportState,
)
from campaigns.models.request import IdempotencyKey, Mode, Outcome, RunRequest
from campaigns.models.run import ProblemKind, Run, RunEvent, RunProblem, RunRecipients, RunState, Trigger
from campaigns.models.schedule import Schedule, ScheduleEvent, ScheduleKind, Slot, SlotOutcome
from campaigns.models.template import Template, TemplateVersion
from campaigns.models.workflow import OnFailed, OnLate, RenderErrorPolicy, Start, Step, Workflow

__all__ = [
    "SILENT_AFTER",
    "UNDER_WAY",
    "Audience",
    "AudienceBookmark",
    "AudienceKind",
    "Callback",
    "CallbackAttempt",
    "CallbackSender",
    "CallbackState",
    "Cluster",
    "Contact",
    "ContactChange",
    "ContactImport",
    "ContactList",
    "IdempotencyKey",
    "ImportChunk",
    "ImportPolicy",
    "ImportProblem",
    "ImportState",
    "Mode",
    "OnFailed",
    "OnLate",
    "Outcome",
    "ProblemKind",
    "RenderErrorPolicy",
    "Run",
    "RunEvent",
    "RunProblem",
    "RunRecipients",
    "RunRequest",
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
    "Webhook",
    "WebhookEvent",
    "Workflow",
]
