"""Which envelopes may go together in one call, for APIs that take several. Keeps their order within each group."""

from collections.abc import Callable, Hashable, Sequence

from delivery.core.envelope import Envelope

Group = list[Envelope]


def alike(envelopes: Sequence[Envelope], trait: Callable[[Envelope], Hashable]) -> list[Group]:
    """A group for each value of `trait` among them."""
    groups: dict[Hashable, Group] = {}
    for envelope in envelopes:
        groups.setdefault(trait(envelope), []).append(envelope)
    return list(groups.values())


def up_to(envelopes: Sequence[Envelope], most: int, size: Callable[[Envelope], int]) -> list[Group]:
    """Groups of at most `most` by `size`; what is larger than that goes alone."""
    groups: list[Group] = []
    room = 0
    for envelope in envelopes:
        needed = size(envelope)
        if not groups or needed > room:
            groups.append([])
            room = most
        groups[-1].append(envelope)
        room -= needed
    return groups
