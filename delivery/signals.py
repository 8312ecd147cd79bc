"""News that delivery gives to whoever asked for it. Receivers run in the worker, inside the transaction that made the
news true: what they write is written together with it or not at all.

batch_done  every delivery of a batch has an end state. Arguments: batch_id, reference, counts (by end state).
deliveries_ended  deliveries have come to an end, those of one group commit together. Argument: ended, a sequence of
            things with an id, a batch and a state.
batch_cut   all that nobody had of a batch has ended in one statement, and is not listed. Arguments: batch_id, at (their
            `settled_at`), counts (by end state).
deliveries_heard  something was heard of deliveries after they were accepted; what was heard before may be among it.
            Argument: heard, a sequence of `delivery.queue.Heard`.
engine_changed  a person held, released or switched an engine, or its circuit opened or closed; the latter comes after
            the fact, which is not in this database perhaps. Arguments: engine_id, what, by, why, until.
engine_back a person released an engine or switched it on: what waited for it may go. Comes after the transaction. No
            arguments.
reviewed    a person has said of composed words what becomes of them: what waited for that may go. Comes after the
            transaction. No arguments.
"""

from django.dispatch import Signal

batch_done = Signal()
deliveries_ended = Signal()
batch_cut = Signal()
deliveries_heard = Signal()
engine_changed = Signal()
engine_back = Signal()
reviewed = Signal()
