"""By what lists are narrowed: delivery's, of which campaigns use the same."""

from delivery.api.narrowing import InstantFilter, NamedFilter, YesNoFilter

__all__ = ["InstantFilter", "NamedFilter", "YesNoFilter"]
