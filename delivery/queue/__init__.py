"""The door to the durable queue, and the only place where the state of a delivery or a batch is written.

filling   ready rows in bulk               leasing   ready -> leased -> ready, waiting -> ready, dead workers' rows
outcomes  leased -> sending -> an end      batches   open, held, cancelled, done
tallies   counts by end state              dialect   PostgreSQL and SQLite
"""

from delivery.queue.batches import (
    BatchView,
    cancel,
    finish_cancelled,
    finish_if_done,
    hold,
    open_batches,
    open_for_sending,
    release,
)
from delivery.queue.filling import Filler, NewDelivery
from delivery.queue.tallies import counts_by_state, progress

__all__ = [
    "BatchView",
    "Filler",
    "NewDelivery",
    "cancel",
    "counts_by_state",
    "finish_cancelled",
    "finish_if_done",
    "hold",
    "open_batches",
    "open_for_sending",
    "progress",
    "release",
]
