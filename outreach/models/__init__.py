"""Who may use the API with what, and what they did with it."""

from outreach.models.audit import AuditEntry
from outreach.models.role import Role
from outreach.models.token import SCOPES, ApiToken, Scope

__all__ = ["SCOPES", "ApiToken", "AuditEntry", "Role", "Scope"]
