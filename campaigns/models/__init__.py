"""Campaigns' tables, one subject per file. Imports run downwards only: template, audience, workflow, run."""

from campaigns.models.audience import Audience, AudienceKind, Contact, ContactList, Upload, UploadChunk
from campaigns.models.cluster import SILENT_AFTER, Cluster
from campaigns.models.run import ProblemKind, Run, RunEvent, RunProblem, RunState, Trigger
from campaigns.models.template import Template, TemplateVersion
from campaigns.models.workflow import RenderErrorPolicy, Start, Step, Workflow

__all__ = [
    "SILENT_AFTER",
    "Audience",
    "AudienceKind",
    "Cluster",
    "Contact",
    "ContactList",
    "ProblemKind",
    "RenderErrorPolicy",
    "Run",
    "RunEvent",
    "RunProblem",
    "RunState",
    "Start",
    "Step",
    "Template",
    "TemplateVersion",
    "Trigger",
    "Upload",
    "UploadChunk",
    "Workflow",
]
