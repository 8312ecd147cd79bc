"""The admin's pages on people, what they may do, and what they did over the API."""

from outreach.admin import audit, people, tokens  # noqa: F401  (each registers its pages)
