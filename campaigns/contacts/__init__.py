"""Contacts brought in by files: looked at first, imported in chunks, and undone.

    upload ▶ uploaded ──check──▶ checking ▶ checked ──start──▶ importing ▶ done ──undo──▶ undoing ▶ undone
                                    └▶ refused                     └────────undo────────────▶

What a person may do is in `states`; the work between two states is a cluster's, piece by piece, each piece one
transaction with the place that was reached: whoever takes it over from a process that died goes on there. An import
writes contacts and nothing else. Suppressions it only counts: who must not be mailed must not be mailed afterwards.
"""
