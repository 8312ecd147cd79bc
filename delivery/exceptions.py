"""What can go wrong in delivery as a whole. Expected outcomes of a mail are values, not exceptions.

DeliveryError
├── SecretUnreadable
├── EngineMisconfigured
├── IllegalTransition
└── IllegalHold
"""


class DeliveryError(Exception):
    """Anything delivery refuses."""


class SecretUnreadable(DeliveryError):
    """A stored credential cannot be decrypted with the keys at hand."""


class EngineMisconfigured(DeliveryError):
    """An engine's settings cannot work; the message says which and why."""


class IllegalTransition(DeliveryError):
    """A batch cannot go from its state to the wanted one."""


class IllegalHold(DeliveryError):
    """An engine cannot be held or released as it stands, or no reason was given."""
