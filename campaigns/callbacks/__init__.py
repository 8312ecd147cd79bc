"""Callbacks: others are told what has happened here, once it is true and at least once.

names    what may be told, and what a webhook asks for      subscriptions  who asks for what, remembered for seconds
news     written in the transaction that makes it true      outbox         what waits: claimed, settled, replayed
sending  over HTTP, many at once and few to each host       retry          what an answer means, and when to try again
webhooks set up, tested, switched off and on                signing        Standard Webhooks: id, timestamp, HMAC

A process that dies between an answer and its record tells it again, under the same `webhook-id`.
"""

from campaigns.callbacks.status import status_of
from campaigns.callbacks.urls import refuse_bad_url

__all__ = ["refuse_bad_url", "status_of"]
