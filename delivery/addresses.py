"""One normal form for an address, and the form by which two spellings are one recipient.

Decides what an address may look like (RFC 5321, 6531, IDNA/UTS 46; the rules are email-validator's) and how it is
written everywhere after it came in. Asks no DNS and knows nothing of suppression: whether mail would arrive is
learned by sending, whether it may go is decided elsewhere.
"""

import re
import unicodedata

import email_validator
from email_validator.rfc_constants import CASE_INSENSITIVE_MAILBOX_NAMES

MAX_LOCAL = 64  # octets, RFC 5321 §4.5.3.1.1
MAX_ADDRESS = 254  # octets: the path of §4.5.3.1.3 without its angle brackets; leaves a domain less than its own 255

# Refusing long input early bounds the work (normalisation is quadratic in places) and the length of the reason.
MAX_RAW = 4 * MAX_ADDRESS

# Operators try things out with .test, .invalid and localhost, and intranets use .local. What stays refused is .arpa and
# .onion, which no mail server serves. Editing the list is email-validator's documented way to say so.
for _special in ("invalid", "local", "localhost", "test"):
    if _special in email_validator.SPECIAL_USE_DOMAIN_NAMES:
        email_validator.SPECIAL_USE_DOMAIN_NAMES.remove(_special)

# The plain case, nearly all of any list, at a twentieth of the cost: dot-atom local part, host name of at least two
# labels that ends in a letter. Only what is certainly valid may match.
_ATOM = r"[A-Za-z0-9_!#$%&'*+\-/=?^`{|}~]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PLAIN = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL}\.)+(?:[A-Za-z0-9][A-Za-z0-9-]{{0,61}})?[A-Za-z])")
_REFUSED_ENDS = (".arpa", ".onion")

_ROLE_MAILBOXES = frozenset(CASE_INSENSITIVE_MAILBOX_NAMES)  # RFC 2142: the same in any case, so written in one

_ANGLE_BRACKETS = re.compile(r"<[^<>]*@[^<>]*>\Z")


class ImpossibleAddress(ValueError):
    """The text cannot be the address of anybody; `reason` is a sentence that says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def normalise(raw: str) -> str:
    """The address in its one normal form: no white space around it, the local part in its own case (NFC), the domain
    in lower case and as A-label. `" Bjørn@Bücher.example "` becomes `"Bjørn@xn--bcher-kva.example"`.

    Takes a plain address only, no display name. Raises `ImpossibleAddress`.
    """
    address = raw.strip()
    plain = _PLAIN.fullmatch(address) if len(address) <= MAX_ADDRESS else None
    if plain is not None:
        local, domain = plain.groups()
        domain = domain.lower()
        # "--" may be Punycode or a reserved label, and is worth the long way.
        if len(local) <= MAX_LOCAL and "--" not in domain and not domain.endswith(_REFUSED_ENDS):
            folded = local.lower()
            return f"{folded if folded in _ROLE_MAILBOXES else local}@{domain}"
    return normalise_in_full(address)


def normalise_in_full(address: str) -> str:
    """What `normalise` says, found by every rule instead of the short cut for plain addresses."""
    address = address.strip()
    if not address:
        raise ImpossibleAddress("The address is empty.")
    if len(address) > MAX_RAW:
        raise ImpossibleAddress(f"The address is far too long ({len(address)} characters; at most {MAX_ADDRESS}).")
    if _ANGLE_BRACKETS.search(address):
        raise ImpossibleAddress("There are angle brackets: give the plain address only, without a name around it.")
    if not any(sign in address for sign in "@＠﹫"):  # for the other two signs email-validator has a better sentence
        raise ImpossibleAddress("There is no @ in it.")
    try:
        found = email_validator.validate_email(
            address,
            strict=True,
            check_deliverability=False,
            globally_deliverable=not address.lower().endswith("@localhost"),
        )
    except email_validator.EmailNotValidError as error:
        raise ImpossibleAddress(str(error)) from error
    # email-validator counts characters here, SMTP octets.
    octets = len(found.local_part.encode())
    if octets > MAX_LOCAL:
        raise ImpossibleAddress(f"The part before the @ is too long ({octets} octets in UTF-8; at most {MAX_LOCAL}).")
    return f"{found.local_part}@{found.ascii_domain}"


def identity(address: str) -> str:
    """The form of a normalised address by which two spellings are one recipient, and by which suppression compares.

    The whole address without regard to case (Unicode caseless matching, then NFC): RFC 5321 lets a server tell `Bob@`
    from `bob@`, but none does, and a mail too many to somebody who opted out is worse than one too few.
    """
    if address.isascii():
        return address.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", address).casefold())
