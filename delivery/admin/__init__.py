"""Delivery's pages in the admin: engines and pools to set up, composed texts to review; deliveries, suppressions and
sandbox mails to look at.

The pages show and parse; what is right and what happens is decided by the models and by the functions they call.
"""

from delivery.admin import compositions, deliveries, engines, pools, sandbox, suppressions

__all__ = ["compositions", "deliveries", "engines", "pools", "sandbox", "suppressions"]
