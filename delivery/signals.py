"""News that delivery gives to whoever asked for it. Receivers run in the worker, inside the transaction that made the
news true: what they write is written together with it or not at all.

batch_done  every delivery of a batch has an end state. Arguments: batch_id, reference, counts (by end state).
engine_back a person released an engine or switched it on: what waited for it may go. Comes after the transaction. No
            arguments.
reviewed    a person has said of composed words what becomes of them: what waited for that may go. Comes after the
            transaction. No arguments.
"""

from django.dispatch import Signal

batch_done = Signal()
engine_back = Signal()
reviewed = Signal()
