"""What campaigns refuses. Each message is a sentence for the operator: what, where, what to do.

CampaignError
├── IllegalMove
├── NotReady
├── KeyTaken
└── NothingToReplay
"""


class CampaignError(Exception):
    """Anything campaigns refuses."""


class IllegalMove(CampaignError):
    """A run cannot go from its state to the wanted one."""


class NotReady(CampaignError):
    """A workflow cannot run as it is set up."""


class KeyTaken(CampaignError):
    """An idempotency key was used for another workflow."""


class NothingToReplay(CampaignError):
    """No delivery of a run is in a state from which it could go out again."""
