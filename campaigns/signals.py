"""News that campaigns gives to whoever asked for it.

ticked  the cluster has looked at everything (`campaigns.housekeeping`), as it does every minute: the time to clear away
        what is old. Comes after the tick's own work, outside of a transaction. No arguments.
"""

from django.dispatch import Signal

ticked = Signal()
