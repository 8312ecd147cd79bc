"""Delivery's pages in the admin: engines and pools to set up; deliveries, suppressions and sandbox mails to look at.

The pages show and parse; what is right and what happens is decided by the models and by the functions they call.
"""

from delivery.admin import deliveries, engines, pools, sandbox, suppressions

__all__ = ["deliveries", "engines", "pools", "sandbox", "suppressions"]
