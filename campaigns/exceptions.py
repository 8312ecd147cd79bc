"""What campaigns refuses. Each message is a sentence for the operator: what, where, what to do.

CampaignError
├── IllegalMove
├── NotReady
├── KeyTaken
├── BadSchedule
├── BadWindow
├── NothingToReplay
└── CallbackRefused
"""


class CampaignError(Exception):
    """Anything campaigns refuses."""


class IllegalMove(CampaignError):
    """A run cannot go from its state to the wanted one."""


class NotReady(CampaignError):
    """A workflow cannot run as it is set up."""


class KeyTaken(CampaignError):
    """An idempotency key was used for another workflow."""


class BadSchedule(CampaignError):
    """A schedule makes no sense. `field` is the place, as the form and the API name it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class BadWindow(CampaignError):
    """A sending window makes no sense. `field` is the place, as the form and the API name it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class BadStep(CampaignError):
    """A step makes no sense. `field` is the place, as the form and the API name it."""

    def __init__(self, field: str, words: str) -> None:
        super().__init__(words)
        self.field = field
        self.words = words


class NothingToReplay(CampaignError):
    """No delivery of a run is in a state from which it could go out again."""


class CallbackRefused(CampaignError):
    """A callback cannot be sent as things stand."""


class ImportImpossible(CampaignError):
    """An import of contacts cannot do what is asked of it as it stands."""
