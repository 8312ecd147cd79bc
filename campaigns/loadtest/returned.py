"""Which triggers were called back, how long after they were made, and which were not, or twice. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from campaigns.loadtest.measures import Sample
from campaigns.loadtest.receiver import OVER, Heard
from campaigns.loadtest.storm import Stormed


@dataclass(frozen=True, slots=True)
class Returned:
    """`back`: of each trigger that was called back when its run was over, the instant (seconds after the storm began)
    and the seconds since its request began. `missing` of `asked` were not. `doubled`: callbacks beyond the first.
    `unsigned`: those that this installation has not signed. `ends`: what they said."""

    asked: int
    back: tuple[tuple[float, float], ...]
    missing: int
    doubled: int
    unsigned: int
    ends: dict[str, int] = field(default_factory=dict)


def returned(stormed: Stormed, heard: Iterable[Heard]) -> Returned:
    """What was heard, held against what was asked. What belongs to no trigger that was taken is left out: one whose
    answer was lost may still be called back."""
    asked = {sample.number: sample for sample in stormed.samples if sample.good}
    back: dict[int, tuple[float, float]] = {}
    ends: Counter[str] = Counter()
    doubled = unsigned = 0
    for each in heard:
        if each.type not in OVER or each.number not in asked:
            continue
        unsigned += not each.signed
        if each.number in back:
            doubled += 1
            continue
        at = each.at - stormed.began_at
        back[each.number] = (at, at - asked[each.number].began)
        ends[each.type] += 1
    return Returned(len(asked), tuple(back.values()), len(asked) - len(back), doubled, unsigned, dict(ends))


def all_back(samples: Sequence[Sample], heard: Sequence[Heard]) -> bool:
    """Whether nobody need wait any longer."""
    over = {each.number for each in heard if each.type in OVER}
    return all(sample.number in over for sample in samples if sample.good)
