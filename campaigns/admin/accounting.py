"""How far a run is, and the equation that must hold at its end: every recipient is somewhere."""

from dataclasses import dataclass

from campaigns.models import Run
from delivery.admin.deliveries import OPEN, STATE_COLOURS, deliveries_url
from delivery.models import OPEN_STATES, DeliveryState
from delivery.models.batch import BatchState
from delivery.queue import progress

END_STATES = tuple(state for state in DeliveryState if state not in OPEN_STATES)


@dataclass(frozen=True, slots=True)
class Share:
    """How many deliveries are in one state; `percent` of all; `url` lists them, "" when there are none."""

    label: str
    count: int
    percent: float
    colour: str
    url: str

    @property
    def text(self) -> str:
        return f"{self.count:,}"

    @property
    def width(self) -> str:
        """The share as a CSS width."""
        return f"{self.percent:.3f}%"


@dataclass(frozen=True, slots=True)
class Accounting:
    """total = the sum of `ends` + `still_open`."""

    total: int
    total_url: str
    ends: tuple[Share, ...]
    still_open: Share
    adds_up: bool

    @property
    def terms(self) -> tuple[Share, ...]:
        """The right side of the equation."""
        return (*self.ends, self.still_open) if self.still_open.count else self.ends

    @property
    def percent(self) -> int:
        """How much has ended, rounded down: 100 means all."""
        return 100 * self.ended // self.total

    @property
    def ended(self) -> int:
        return sum(share.count for share in self.ends)

    @property
    def ended_text(self) -> str:
        return f"{self.ended:,}"

    @property
    def total_text(self) -> str:
        return f"{self.total:,}"


def accounting_of(run: Run) -> Accounting | None:
    """Where a run's recipients are, from a few rows however large it is; None before the first may go out."""
    if run.batch is None or not run.batch.total or run.batch.state == BatchState.FILLING:
        return None
    total = run.batch.size
    counts = progress(run.batch_id)

    def share(state: str, label: str, count: int) -> Share:
        url = deliveries_url(run.batch_id, state) if count else ""
        return Share(label, count, 100 * count / total, STATE_COLOURS.get(label, "neutral"), url)

    ends = tuple(share(state.value, state.label, counts.get(state.value, 0)) for state in END_STATES)
    open_now = total - sum(end.count for end in ends)
    return Accounting(
        total=total,
        total_url=deliveries_url(run.batch_id),
        ends=ends,
        still_open=share(OPEN, "still open", max(open_now, 0)),
        adds_up=open_now == 0 if run.batch.state == BatchState.DONE else open_now >= 0,
    )
