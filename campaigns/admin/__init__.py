"""Campaigns' pages in the admin: workflows, schedules, templates, audiences and contacts to set up; runs, worker
clusters and their tasks to follow.

The pages show and parse; what is right and what happens is decided by the models and by the functions they call.
"""

from campaigns.admin import (
    audiences,
    callbacks,
    clusters,
    contact_imports,
    contacts,
    dead_letters,
    run_requests,
    runs,
    schedules,
    tasks,
    templates,
    webhooks,
    workflows,
)

__all__ = [
    "audiences",
    "callbacks",
    "clusters",
    "contact_imports",
    "contacts",
    "dead_letters",
    "run_requests",
    "runs",
    "schedules",
    "tasks",
    "templates",
    "webhooks",
    "workflows",
]
