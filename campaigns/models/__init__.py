"""Campaigns' tables, one subject per file. Imports run downwards only: template, audience, workflow, run."""

from campaigns.models.audience import Audience, AudienceKind, Contact, ContactList, Upload, UploadChunk
from campaigns.models.run import ProblemKind, Run, RunEvent, RunProblem, RunState, Trigger
from campaigns.models.template import Template, TemplateVersion
from campaigns.models.workflow import RenderErrorPolicy, Step, Workflow

__all__ = [
    "Audience",
    "AudienceKind",
    "Contact",
    "ContactList",
    "ProblemKind",
    "RenderErrorPolicy",
    "Run",
    "RunEvent",
    "RunProblem",
    "RunState",
    "Step",
    "Template",
    "TemplateVersion",
    "Trigger",
    "Upload",
    "UploadChunk",
    "Workflow",
]
