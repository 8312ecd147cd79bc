"""The worker: works on what is ready, through real engines, on the database.

database  two threads for the event loop      ledger  intent and outcome by group commit
tokens    this worker's share of a limit      lane    deliveries on their way through one engine
pump      leases, routes, concludes                standing  how the engines are, as this worker knows
"""

from delivery.worker.database import Database
from delivery.worker.pump import Pump, Surroundings, Until

__all__ = ["Database", "Pump", "Surroundings", "Until"]
