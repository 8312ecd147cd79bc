"""Any of Django's email backends as an engine, those of django-anymail among them.

message   an envelope as Django's EmailMessage       failures  what an exception or a result means
mailer    one backend object, its connection kept    seat      a thread for each of them
engine    the way out                                kind      the settings
"""

from delivery.engines.django_backend.kind import KIND

__all__ = ["KIND"]
