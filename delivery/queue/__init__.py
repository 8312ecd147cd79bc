"""The door to the durable queue, and the only place where the state of a delivery or a batch is written.

filling   ready rows in bulk               leasing   ready -> leased -> ready, waiting -> ready, dead workers' rows
outcomes  leased -> sending -> an end      batches   open, held, cancelled, done
replay    an end -> ready again            tallies   counts by end state
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
)
from delivery.queue.dialect import database_now
from delivery.queue.filling import Filler, NewDelivery
from delivery.queue.leasing import oldest_expired
from delivery.queue.replay import REPLAYED, consider_accepted, hasten, replay
from delivery.queue.tallies import counts_by_state, progress

__all__ = [
    "REPLAYED",
    "BatchView",
    "Filler",
    "NewDelivery",
    "cancel",
    "consider_accepted",
    "counts_by_state",
    "database_now",
    "filled",
    "finish_cancelled",
    "finish_if_done",
    "hasten",
    "hold",
    "lock",
    "oldest_expired",
    "open_batches",
    "open_for_sending",
    "progress",
    "release",
    "replay",
]
