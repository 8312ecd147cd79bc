"""Any JSON API as an engine: the operator says what is sent, and what the answers mean.

fields          an envelope as the data of templates      url, headers, body, request   what is sent for it
paths, rules    what an answer means                      api      both, joined: a Provider
authentication  who calls; oauth where that takes a call  engine   the working engine, and its `check`
settings, form  what an operator enters                   kind     all of it under one name
"""

from delivery.engines.http_api.kind import KIND

__all__ = ["KIND"]
