"""What came of a mail that a Django backend was given: from an exception, or from what it returned, to an Outcome.

What decides is whether the mail was certainly not handed over:

    the server's reply (smtplib's exceptions)        what `delivery.core.classify` says of it
    the API's answer (an exception with a status)    what `delivery.core.answer` says of it; with a 2xx: UNKNOWN
    settings, a package that is missing              ENGINE
    what Anymail refuses before it asks              MESSAGE
    no connection, no such name                      TRANSIENT
    lost before the content of the mail began        TRANSIENT
    anything else, of whatever class                 UNKNOWN: it may have come after the hand-over
    returned 0                                       TRANSIENT: the backend says that it sent none, and not why
    returned None                                    UNKNOWN: the backend does not say, and many say nothing of success

Anymail's and requests' classes are known by name: neither package need be installed.
"""

import smtplib
import socket
import ssl
from collections.abc import Iterator
from datetime import datetime

from django.core.exceptions import ImproperlyConfigured
from django.core.mail import BadHeaderError, EmailMessage

from delivery.core.answer import Answer, classify_answer, plain, told_to_wait
from delivery.core.classify import Stage, classify_reply
from delivery.core.envelope import Kind, Outcome

_STAGES = (
    (smtplib.SMTPSenderRefused, Stage.MAIL),
    (smtplib.SMTPDataError, Stage.DOT),
    (smtplib.SMTPConnectError, Stage.GREETING),
    (smtplib.SMTPHeloError, Stage.EHLO),
    (smtplib.SMTPAuthenticationError, Stage.AUTH),
    (smtplib.SMTPResponseException, Stage.STARTTLS),  # the only one that smtplib raises as such
)
_BEFORE_ASKING = frozenset({"AnymailUnsupportedFeature", "AnymailInvalidAddress", "AnymailSerializationError"})
_NO_CONNECTION = frozenset(
    {"ConnectTimeout", "ConnectTimeoutError", "NewConnectionError", "NameResolutionError"}  # requests, urllib3
    | {"EndpointConnectionError"}  # botocore
    | {"ConnectError"}  # httpx
)
_MISCONFIGURED = (ImproperlyConfigured, ImportError, smtplib.SMTPNotSupportedError)
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "NoRegionError"})  # botocore
_WRONG_OPTIONS = (TypeError, ValueError, AttributeError)
_DEEPEST = 20  # errors within errors that are looked at


def not_opened(error: Exception, now: datetime) -> Outcome:
    """What came of a mail when the backend could not be made, or not open its connection."""
    # smtplib says "No suitable authentication method found" by its base class.
    if isinstance(error, (*_MISCONFIGURED, *_WRONG_OPTIONS)) or type(error) is smtplib.SMTPException:
        return Outcome(Kind.ENGINE, text=_words(error))
    if (outcome := _answered(error, now)) is not None and outcome.kind is not Kind.UNKNOWN:
        return outcome
    return Outcome(Kind.TRANSIENT, text=_words(error))


def not_sent(error: Exception, message: EmailMessage, now: datetime, *, handed: bool) -> Outcome:
    """What came of a mail when `send_messages` raised. `handed`: its content may have been on its way."""
    if isinstance(error, _MISCONFIGURED) or any(_names(each) & _NO_CREDENTIALS for each in _within(error)):
        return Outcome(Kind.ENGINE, text=_words(error))
    if isinstance(error, BadHeaderError) or _names(error) & _BEFORE_ASKING:
        return Outcome(Kind.MESSAGE, text=_words(error))
    if "AnymailRecipientsRefused" in _names(error):
        return _status_of(message) or Outcome(Kind.RECIPIENT, text=_words(error))
    if (outcome := _answered(error, now)) is not None:
        return outcome
    certain = not handed or any(map(_is_no_connection, _within(error)))
    return Outcome(Kind.TRANSIENT if certain else Kind.UNKNOWN, text=_words(error))


def result_of(returned: object, message: EmailMessage) -> Outcome:
    """What came of a mail when `send_messages` raised nothing."""
    if (outcome := _status_of(message)) is not None:
        return outcome
    if isinstance(returned, int):
        if returned > 0:
            return Outcome(Kind.ACCEPTED)
        return Outcome(Kind.TRANSIENT, text="The backend says that it sent no mail, and not why.")
    return Outcome(Kind.UNKNOWN, text="The backend does not say whether it sent the mail.")


def _answered(error: Exception, now: datetime) -> Outcome | None:
    """The outcome of an error that bears a server's reply or an API's answer; None for any other."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, text = next(iter(error.recipients.values()))
        return classify_reply(Stage.RCPT, code, _decoded(text))
    for kind, stage in _STAGES:
        if isinstance(error, kind):
            return classify_reply(stage, error.smtp_code, _decoded(error.smtp_error))
    for each in _within(error):
        if (answer := _answer_of(each)) is not None:
            if answer.is_success:  # it came, and the backend made nothing of it
                return Outcome(Kind.UNKNOWN, str(answer.status), _words(error))
            return classify_answer((), answer, wait=told_to_wait(answer.headers, now))
    return None


def _answer_of(error: BaseException) -> Answer | None:
    """The API's answer that an exception of Anymail, requests or botocore holds."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        about = response.get("ResponseMetadata", {})
        found = response.get("Error", {})
        words = f"{plain(found.get('Code'))} {plain(found.get('Message'))}"
        return Answer(about.get("HTTPStatusCode", 0), about.get("HTTPHeaders", {}), words.encode())
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if not isinstance(status, int):
        return None
    headers = {name.lower(): value for name, value in (getattr(response, "headers", None) or {}).items()}
    return Answer(status, headers, getattr(response, "content", None) or b"")


def _status_of(message: EmailMessage) -> Outcome | None:
    """What Anymail has noted for the one recipient; None when it has not."""
    recipients = getattr(getattr(message, "anymail_status", None), "recipients", None)
    if not recipients:
        return None
    status = next(iter(recipients.values()))
    match status.status:
        case "sent" | "queued":
            return Outcome(Kind.ACCEPTED, status.status, provider_id=plain(status.message_id))
        case "invalid":
            return Outcome(Kind.RECIPIENT, "invalid", "The address is not valid.", hard=True)
        case "rejected":  # because of the address or of the sender: too vague to suppress anybody
            return Outcome(Kind.RECIPIENT, "rejected", "The provider does not send to this address.")
        case "failed":
            return Outcome(Kind.TRANSIENT, "failed", "The provider could not send this mail.", faults_engine=False)
        case _:
            return Outcome(Kind.UNKNOWN, plain(status.status), "The provider does not say what came of the mail.")


def _within(error: BaseException) -> Iterator[BaseException]:
    """The error and those it was made of: requests and urllib3 keep theirs in `args` and `reason`."""
    seen: list[BaseException] = []
    pending: list[object] = [error]
    while pending and len(seen) < _DEEPEST:
        each = pending.pop(0)
        if isinstance(each, BaseException) and not any(each is other for other in seen):
            seen.append(each)
            pending += [each.__cause__, getattr(each, "reason", None), *each.args]
            yield each


def _is_no_connection(error: BaseException) -> bool:
    """Whether it says that nothing was ever connected to."""
    if isinstance(error, ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError):
        return True
    return not _NO_CONNECTION.isdisjoint(_names(error))


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _decoded(text: bytes | str) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _words(error: BaseException) -> str:
    words = " ".join(plain(str(error)).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
