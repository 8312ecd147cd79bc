"""A way out by SMTP. `engine` is the door; the layers below it, upwards: `replies` and `commands` (octets), `handshake`
and `session` (the protocol, without I/O), `connection` and `opening` (one socket), `pool` (all of them)."""

from delivery.engines.smtp.engine import SmtpEngine
from delivery.engines.smtp.settings import SmtpSettings, Timeouts, validate

__all__ = ["SmtpEngine", "SmtpSettings", "Timeouts", "validate"]
