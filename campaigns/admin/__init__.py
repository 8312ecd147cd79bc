"""Campaigns' pages in the admin: workflows, templates, audiences and contacts to set up; runs to follow.

The pages show and parse; what is right and what happens is decided by the models and by the functions they call.
"""

from campaigns.admin import audiences, contacts, runs, templates, workflows

__all__ = ["audiences", "contacts", "runs", "templates", "workflows"]
