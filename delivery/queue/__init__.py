"""The door to the durable queue, and the only place where the state of a delivery or a batch is written.

filling   rows in bulk                     leasing   ready -> leased -> ready, waiting -> ready, dead workers' rows
outcomes  leased -> sending -> an end      links     what follows from an end for others, by two kinds of link:
batches   open, held, cancelled, done                follow_ups made, dependents released or skipped (plan, ends)
ordering  who waits for whom, by name      composing words that are to be composed
replay    an end -> ready again            events    what is heard after the end
tallies   counts by end state              singles   mails one by one, in standing batches
dialect   PostgreSQL and SQLite
"""

from delivery.queue.batches import (
    BatchView,
    cancel,
    filled,
    finish_cancelled,
    finish_if_done,
    hold,
    lock,
    open_batches,
    open_for_sending,
    release,
    unblock,
)
from delivery.queue.dialect import database_now
from delivery.queue.events import Heard
from delivery.queue.events import record as record_events
from delivery.queue.filling import Filler, NewDelivery
from delivery.queue.leasing import oldest_expired
from delivery.queue.ordering import Circle, Unknown, resolve
from delivery.queue.replay import REPLAYED, consider_accepted, hasten, replay
from delivery.queue.singles import Single, close_standing, message_of, standing_batch
from delivery.queue.singles import add as add_single
from delivery.queue.tallies import counts_by_state, late, progress, tallies_of

__all__ = [
    "REPLAYED",
    "BatchView",
    "Circle",
    "Filler",
    "Heard",
    "NewDelivery",
    "Single",
    "Unknown",
    "add_single",
    "cancel",
    "close_standing",
    "consider_accepted",
    "counts_by_state",
    "database_now",
    "filled",
    "finish_cancelled",
    "finish_if_done",
    "hasten",
    "hold",
    "late",
    "lock",
    "message_of",
    "oldest_expired",
    "open_batches",
    "open_for_sending",
    "progress",
    "record_events",
    "release",
    "replay",
    "resolve",
    "standing_batch",
    "tallies_of",
    "unblock",
]
