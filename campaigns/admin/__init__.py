"""Campaigns' pages in the admin: workflows, schedules, templates, audiences and contacts to set up; runs, worker
clusters and their tasks to follow.

The pages show and parse; what is right and what happens is decided by the models and by the functions they call.
"""

from campaigns.admin import audiences, clusters, contacts, dead_letters, runs, schedules, tasks, templates, workflows

__all__ = ["audiences", "clusters", "contacts", "dead_letters", "runs", "schedules", "tasks", "templates", "workflows"]
