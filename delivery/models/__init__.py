"""Delivery's tables, one subject per file. Imports run downwards only: engine, batch, suppression, queue."""

from delivery.models.batch import Batch, Message, Tally
from delivery.models.composition import Composition, CompositionState
from delivery.models.counter import Counter
from delivery.models.engine import (
    Bucket,
    Counted,
    Engine,
    EngineEvent,
    EngineLimit,
    EngineState,
    Pool,
    PoolMember,
    PoolState,
    SpecialRule,
)
from delivery.models.queue import (
    NO_DEADLINE,
    OPEN_STATES,
    Attempt,
    Delivery,
    DeliveryState,
    Dependency,
    Event,
    EventKind,
    Lease,
)
from delivery.models.sandbox import KeptMail
from delivery.models.suppression import Suppression, SuppressionReason

__all__ = [
    "NO_DEADLINE",
    "OPEN_STATES",
    "Attempt",
    "Batch",
    "Bucket",
    "Composition",
    "CompositionState",
    "Counted",
    "Counter",
    "Delivery",
    "DeliveryState",
    "Dependency",
    "Engine",
    "EngineEvent",
    "EngineLimit",
    "EngineState",
    "Event",
    "EventKind",
    "KeptMail",
    "Lease",
    "Message",
    "Pool",
    "PoolMember",
    "PoolState",
    "SpecialRule",
    "Suppression",
    "SuppressionReason",
    "Tally",
]
