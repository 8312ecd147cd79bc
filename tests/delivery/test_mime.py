"""What `delivery.mime` builds, read by the standard library and compared with what an EmailMessage of the same values
says after its own round trip; and what holds on the wire, whoever reads it.

A random failure prints its falsifying example and the blob that repeats it (`@reproduce_failure`).
"""

import base64
import quopri
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from email import policy
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parseaddr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.core.envelope import Attachment, Envelope, Frame, Mailbox
from delivery.mime import Builder, compile_frame

pytestmark = pytest.mark.once

NOON = datetime(2026, 8, 31, 12, 0, tzinfo=UTC)
FRAME = Frame(sender=Mailbox("news@example.com", "Example News"), return_path="bounces@example.com")
LOGO = Attachment("logo.png", "image/png", b"\x89PNG\r\n\x1a\n", content_id="logo@example.com")
TERMS = Attachment("terms.pdf", "application/pdf", b"%PDF-1.7")


def an_envelope(**changes) -> Envelope:
    plain = Envelope(
        key="k-1",
        message_id="0123456789abcdef@example.com",
        frame=FRAME,
        recipient=Mailbox("jane@example.org", "Jane Doe"),
        subject="Your order",
        text="Hello",
        html="",
        date=NOON,
    )
    return plain._replace(**changes)


def build(envelope: Envelope) -> bytes:
    return compile_frame(envelope.frame).build(envelope)


# Values ---------------------------------------------------------------------------------------------------------------

WORDS = [
    "é",
    "naïve",
    "Grüße, Jörg",
    "😀",
    "👩\u200d👩\u200d👧",
    "e\u0301",
    "שלום",
    "مرحبا",
    "\u202eabc",
    "日本語",
    "\u00a0",
]
LONG_WORDS = ["a" * 90, "https://example.com/" + "x/" * 60, "  ", " " * 40]
SPECIALS = [
    "=?utf-8?q?x?=",
    "?=",
    "=20",
    "(c)",
    '"q"',
    "b\\s",
    "x@y.z",
    "<a>",
    ",",
    ";",
    ".",
    "=",
    "_",
    "=_",
    "--",
    "%41",
    "'",
]
SNIPPETS = ["word", *WORDS, *LONG_WORDS, *SPECIALS]
LINES = ["From me", "From ", ".", "..", ".x", "-- ", "--=_mixed", "x" * 75 + " ", "x" * 74 + "\t", "a\x0bb\x0c", "\x7f"]
# Zl and Zp: the standard library takes them for line ends and refuses the header.
one_line = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))
header_values = st.one_of(
    st.lists(st.sampled_from(SNIPPETS), max_size=12).map(" ".join),
    st.lists(st.sampled_from(SNIPPETS), max_size=6).map("".join),  # more could make a word that no line can hold
    st.text(one_line, max_size=120),
)
line_ends = st.sampled_from(["\n", "\r\n", "\r", "\n\n", " \n", "\t\r\n"])
bodies = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=400),
    st.lists(st.tuples(st.sampled_from(SNIPPETS + LINES), line_ends), min_size=1).map(
        lambda pairs: "".join(line + end for line, end in pairs)
    ),
    st.lists(st.sampled_from(["plain ASCII words", "of some length,", "in short lines"]), min_size=1).map("\n".join),
)
addresses = st.sampled_from(
    ["jane@example.org", "o'neil+tag@sub.example.org", '"john doe"@example.com', "x@[192.0.2.1]"]
)
mailboxes = st.builds(Mailbox, addresses, header_values)
LONG_NAME = "X-" + "Long" * 15
header_names = st.sampled_from(["X-Campaign", "X-Tag", "Comments", LONG_NAME])
extra_headers = st.lists(st.tuples(header_names, header_values), max_size=3).map(tuple)
filenames = st.one_of(
    st.text(one_line, max_size=60), st.lists(st.sampled_from(SNIPPETS), min_size=1, max_size=6).map("".join)
)
attachments = st.builds(
    Attachment,
    # EmailMessage writes an empty name, `build` none.
    filename=filenames.filter(lambda name: name.strip(" ")),
    content_type=st.sampled_from(["application/pdf", "image/png", "text/csv", "application/vnd.ms-excel"]),
    content=st.binary(max_size=200),
    content_id=st.sampled_from(["", "", "logo@example.com"]),
)
frames = st.builds(
    Frame,
    sender=mailboxes,
    return_path=st.just("bounces@example.com"),
    reply_to=st.none() | mailboxes,
    headers=extra_headers,
    attachments=st.lists(attachments, max_size=3).map(tuple),
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@st.composite
def envelopes(draw) -> Envelope:
    text, html = draw(
        st.one_of(st.tuples(bodies, bodies), st.tuples(bodies, st.just("")), st.tuples(st.just(""), bodies))
    )
    return an_envelope(
        message_id=draw(st.sampled_from(["0123456789abcdef@example.com", "a.b+c=d@" + "long." * 20 + "example"])),
        frame=draw(frames),
        recipient=draw(mailboxes),
        subject=draw(header_values),
        text=text,
        html=html,
        date=draw(st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=zones)).replace(microsecond=0),
        headers=draw(extra_headers),
    )


def random_mails(count: int) -> settings:
    return settings(max_examples=count, deadline=None, derandomize=False, print_blob=True)


# What EmailMessage says -----------------------------------------------------------------------------------------------


def email_message(envelope: Envelope) -> EmailMessage:
    frame = envelope.frame
    message = EmailMessage(policy=policy.SMTP)
    message["Date"] = envelope.date
    message["From"] = _address(frame.sender)
    message["To"] = _address(envelope.recipient)
    if frame.reply_to:
        message["Reply-To"] = _address(frame.reply_to)
    message["Message-ID"] = f"<{envelope.message_id}>"
    for name, value in (("Subject", envelope.subject), *frame.headers, *envelope.headers):
        message[name] = value.strip(" ")
    message.set_content(envelope.text or envelope.html, subtype="plain" if envelope.text else "html")
    if envelope.text and envelope.html:
        message.add_alternative(envelope.html, subtype="html")
    inline = [attachment for attachment in frame.attachments if attachment.content_id]
    files = [attachment for attachment in frame.attachments if not attachment.content_id]
    if envelope.html:
        html = message.get_body(("html",))
        for attachment in inline:
            html.add_related(attachment.content, **_arguments(attachment))
    else:
        files = inline + files
    for attachment in files:
        message.add_attachment(attachment.content, **_arguments(attachment))
    return message


def _address(mailbox: Mailbox) -> Address:
    name = mailbox.name.strip(" ")
    return Address(display_name=name if is_writable(name) else "", addr_spec=mailbox.address)


def is_writable(display_name: str) -> bool:
    """Whether EmailMessage can write it. What looks like an encoded-word it writes as it is, so that it is read as what
    it encodes; and a name loses the quotes it needs where the line is folded, so that it is read as other mailboxes."""
    return "=?" not in display_name and len(display_name) <= 35  # fits in a line with any of `addresses`


def _arguments(attachment: Attachment) -> dict[str, str]:
    maintype, _, subtype = attachment.content_type.partition("/")
    arguments = {"maintype": maintype, "subtype": subtype, "filename": attachment.filename.strip(" ")}
    if attachment.content_id:
        return {**arguments, "disposition": "inline", "cid": f"<{attachment.content_id}>"}
    return {**arguments, "disposition": "attachment"}


# How a mail is read ---------------------------------------------------------------------------------------------------

MAILBOX_HEADERS = ("From", "To", "Reply-To")


def parsed(octets: bytes) -> EmailMessage:
    return BytesParser(policy=policy.default).parsebytes(octets)


def unfolded_headers(octets: bytes) -> list[tuple[str, str]]:
    head = re.sub(rb"\r\n(?=[ \t])", b"", octets.partition(b"\r\n\r\n")[0]).decode()
    return [tuple(line.split(": ", 1)) for line in head.split("\r\n")]


def values_of(message: EmailMessage) -> list[tuple[str, str]]:
    """All headers but the mailboxes and what belongs to the parts."""
    return [
        # Of a header that is folded right behind its colon, Python 3.11 counts the blank of the fold as text.
        (name, str(value).strip(" "))
        for name, value in message.items()
        if name not in MAILBOX_HEADERS and not name.startswith("Content-")
    ]


def mailboxes_of(message: EmailMessage) -> dict[str, list[tuple[str, str]]]:
    """The names without white space, some of which the library's parser of display names drops, while it puts some
    between two encoded-words, where RFC 2047 §6.2 has none. `display_name` reads it as it is."""
    return {
        name: [(without_blanks(one.display_name), one.addr_spec) for one in message[name].addresses]
        for name in MAILBOX_HEADERS
        if name in message
    }


def without_blanks(text: str) -> str:
    return "".join(text.split())


def display_name(octets: bytes, header: str) -> str:
    """By the older functions of the library, which know where a blank belongs."""
    name, _ = parseaddr(dict(unfolded_headers(octets))[header])
    return str(make_header(decode_header(name)))


@dataclass(frozen=True)
class Part:
    content_type: str
    parameters: tuple[tuple[str, str], ...]
    disposition: str | None
    filename: str | None
    content_id: str | None
    content: str | bytes | None


def parts_of(message: EmailMessage) -> list[Part]:
    return [_part(part) for part in message.walk()]


def _part(part: EmailMessage) -> Part:
    header = part["Content-Disposition"]
    if part.is_multipart():
        content = None
    elif header is None:
        content = part.get_content().replace("\r\n", "\n")
    else:
        content = part.get_payload(decode=True)
    return Part(
        content_type=part.get_content_type(),
        # EmailMessage leaves out the `type` that RFC 2387 §3.1 asks for; the boundary is each writer's own.
        parameters=tuple(item for item in part["Content-Type"].params.items() if item[0] not in ("type", "boundary")),
        disposition=part.get_content_disposition(),
        # Not get_filename(), which takes quotes off that are part of the name.
        filename=header.params.get("filename") if header else None,
        content_id=part["Content-ID"],
        content=content,
    )


def intended_body(body: str) -> str:
    lines = body.replace("\r\n", "\n").replace("\r", "\n")
    return lines if lines.endswith("\n") else lines + "\n"


# As EmailMessage has it -----------------------------------------------------------------------------------------------


def expected_values(envelope: Envelope, said: EmailMessage) -> list[tuple[str, str]]:
    intended = [("Subject", envelope.subject), *envelope.frame.headers, *envelope.headers]
    own = [(name, value) for name, value in values_of(said) if name in ("Date", "Message-ID", "MIME-Version")]
    others = [pair for pair in values_of(said) if pair not in own]
    return own + [
        (name, corrected(name, value, meant.strip(" ")))
        for (name, value), (_, meant) in zip(others, intended, strict=True)
    ]


def corrected(name: str, said: str, intended: str) -> str:
    """What EmailMessage says, or should. What looks like an encoded-word, or the end of one, it writes as it is, so
    that it is read as something else; behind a long name it cuts encoded-words apart; where it folds it doubles or
    drops spaces."""
    torn = "=?" in intended or "?=" in intended or name == LONG_NAME
    return intended if torn or without_blanks(said) == without_blanks(intended) else said


def expected_mailboxes(envelope: Envelope, said: EmailMessage) -> dict[str, list[tuple[str, str]]]:
    """What EmailMessage says, and the name where it cannot write it."""
    intended = {"From": envelope.frame.sender, "To": envelope.recipient, "Reply-To": envelope.frame.reply_to}
    return {
        name: mailboxes
        if is_writable(intended[name].name.strip(" "))
        else [(without_blanks(intended[name].name), address) for _, address in mailboxes]
        for name, mailboxes in mailboxes_of(said).items()
    }


def expected_parts(envelope: Envelope, said: EmailMessage) -> list[Part]:
    """What EmailMessage says, or should: a file name that looks like an encoded-word it writes as it is."""
    attached = sorted(envelope.frame.attachments, key=lambda attachment: not attachment.content_id)
    intended = iter([attachment.filename.strip(" ") for attachment in attached])
    parts = []
    for part in parts_of(said):
        name = next(intended) if part.disposition else ""
        parts.append(replace(part, filename=name) if "=?" in name else part)
    return parts


@random_mails(150)
@given(envelopes())
def test_every_header_and_part_is_what_an_email_message_of_the_same_values_says(envelope):
    said = parsed(email_message(envelope).as_bytes())

    read = parsed(build(envelope))

    assert sorted(values_of(read)) == sorted(expected_values(envelope, said))
    assert mailboxes_of(read) == expected_mailboxes(envelope, said)
    assert parts_of(read) == expected_parts(envelope, said)
    assert [defect for part in read.walk() for defect in part.defects] == []


@random_mails(300)
@given(header_values)
def test_a_header_value_arrives_as_it_was_written(value):
    octets = build(an_envelope(subject=value, recipient=Mailbox("a@b.example", value), headers=(("X-Tag", value),)))

    read = parsed(octets)
    assert read["Subject"] == read["X-Tag"] == value.strip(" ")
    assert display_name(octets, "To") == value.strip(" ")


@pytest.mark.parametrize("value", ["a" + " " * 1200 + "b", "a" + " " * 1200 + "é", "日" * 1200, "x" * 900])
def test_a_value_longer_than_a_line_is_kept(value):
    octets = build(an_envelope(subject=value, headers=(("X-Tag", value),)))

    assert_fit_for_the_wire(octets)
    assert parsed(octets)["Subject"] == parsed(octets)["X-Tag"] == value


@random_mails(300)
@given(bodies)
def test_a_body_arrives_as_it_was_written_with_a_line_end_after_its_last_line(body):
    read = parsed(build(an_envelope(text=body, html=body)))

    assert [part.get_content().replace("\r\n", "\n") for part in read.iter_parts()] == [intended_body(body)] * 2


@pytest.mark.parametrize("length", range(66, 82))
@pytest.mark.parametrize("blank", [" ", "\t"])
def test_a_blank_at_the_end_of_a_full_line_is_kept_and_makes_no_line_too_long(length, blank):
    body = "é" + "x" * length + blank + "\nnext\n"

    octets = build(an_envelope(text=body))

    assert_fit_for_the_wire(octets)
    assert parsed(octets).get_content().replace("\r\n", "\n") == body


def test_a_line_that_begins_with_from_is_hidden_from_mailbox_files():
    body = build(an_envelope(text="From here\nto there\nFrom \nFrom From me")).partition(b"\r\n\r\n")[2]

    assert body == b"=46rom=\r\n here\r\nto there\r\nFrom=20\r\n=46rom=\r\n From me\r\n"


def test_a_body_that_holds_the_boundary_is_not_taken_apart():
    boundary = parsed(build(an_envelope(html="<p>Hello"))).get_boundary()
    body = f"--{boundary}\n--{boundary}--\n"

    read = parsed(build(an_envelope(text=body, html=body)))

    assert [part.get_content().replace("\r\n", "\n") for part in read.iter_parts()] == [body, body]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        ("Plain words,\nin short lines.\n\tx=1\n", "7bit"),
        ("x" * 76, "7bit"),
        ("x" * 77, "quoted-printable"),
        ("blank at the end \nof a line", "quoted-printable"),
        ("a form feed \x0c", "quoted-printable"),
        ("Viele Grüße aus Köln am Rhein, der Stadt mit dem Dom", "quoted-printable"),
        ("日本語のメール", "base64"),
        ("Привет, мир", "base64"),
    ],
)
def test_a_body_gets_the_shortest_encoding_that_keeps_it(body, encoding):
    assert parsed(build(an_envelope(text=body)))["Content-Transfer-Encoding"] == encoding


# On the wire ----------------------------------------------------------------------------------------------------------


def assert_fit_for_the_wire(octets: bytes) -> None:
    assert octets.isascii()
    assert octets.endswith(b"\r\n")
    assert re.search(rb"(?<!\r)\n|\r(?!\n)", octets) is None
    assert re.search(rb"[^\t\r\n -~]", octets) is None
    head, _, body = octets.partition(b"\r\n\r\n")
    # A line may only be longer than 78 when there is no space at which it could be folded.
    assert [line for line in head.split(b"\r\n") if len(line) > 78 and b" " in line.partition(b": ")[2].strip()] == []
    assert max(map(len, head.split(b"\r\n"))) <= 998
    assert [line for line in body.split(b"\r\n") if len(line) > 76] == []
    assert re.search(rb"^From |[ \t]\r$", body, re.MULTILINE) is None
    for word in re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", head):
        assert len(word) <= 75
        assert_holds_whole_characters(word)


def assert_holds_whole_characters(encoded_word: bytes) -> None:
    _, _, encoding, text, _ = encoded_word.split(b"?")
    (base64.b64decode(text) if encoding == b"b" else quopri.decodestring(text, header=True)).decode()


@random_mails(200)
@given(envelopes())
def test_every_mail_is_fit_for_the_wire(envelope):
    assert_fit_for_the_wire(build(envelope))


@random_mails(200)
@given(header_values, header_values)
def test_subject_and_display_name_never_exceed_a_line_of_78(subject, name):
    head = build(an_envelope(subject=subject, recipient=Mailbox("jane@example.org", name))).partition(b"\r\n\r\n")[0]

    assert [line for line in head.split(b"\r\n") if len(line) > 78] == []


def test_a_header_is_folded_only_at_spaces_and_encoded_no_more_than_it_must():
    unsubscribe = f"<https://u.example.com/{'x' * 100}>, <mailto:u@example.com?subject=unsubscribe>"
    envelope = an_envelope(
        frame=replace(FRAME, headers=(("List-Id", "Nächste Schritte <next.example.com>"),)),
        headers=(("List-Unsubscribe", unsubscribe), ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")),
    )

    lines = build(envelope).split(b"\r\n")

    assert lines[5:11] == [
        b"MIME-Version: 1.0",
        b"List-Id: =?utf-8?q?N=C3=A4chste?= Schritte <next.example.com>",
        b"List-Unsubscribe: <https://u.example.com/" + b"x" * 100 + b">,",
        b" <mailto:u@example.com?subject=unsubscribe>",
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        b'Content-Type: text/plain; charset="utf-8"',
    ]


def test_the_same_envelope_gives_the_same_octets_on_every_attempt():
    frame = replace(FRAME, attachments=(LOGO, TERMS))
    envelope = an_envelope(frame=frame, html="<p>Hello")
    after_a_restart = envelope._replace(frame=replace(frame))

    assert build(after_a_restart) == build(envelope)


def test_the_date_is_that_of_the_envelope_in_its_zone():
    date = datetime(2026, 3, 1, 9, 5, 7, 123456, tzinfo=timezone(-timedelta(hours=3, minutes=30)))

    assert build(an_envelope(date=date)).startswith(b"Date: Sun, 1 Mar 2026 09:05:07 -0330\r\n")


# Addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mailbox", "line"),
    [
        (Mailbox("jane@example.org"), "To: jane@example.org"),
        (Mailbox("jane@example.org", "Jane Doe"), "To: Jane Doe <jane@example.org>"),
        (Mailbox("jane@example.org", "Doe, Jane (Dr.)"), 'To: "Doe, Jane (Dr.)" <jane@example.org>'),
        (Mailbox("jane@example.org", 'a"b\\c'), 'To: "a\\"b\\\\c" <jane@example.org>'),
        (Mailbox("jane@example.org", "Jané Doe-Roe"), "To: =?utf-8?q?Jan=C3=A9_Doe-Roe?= <jane@example.org>"),
        (Mailbox("jane@example.org", "早苗"), "To: =?utf-8?b?5pep6IuX?= <jane@example.org>"),
        (Mailbox("info@bücher.example", "Shop"), "To: Shop <info@xn--bcher-kva.example>"),
        (Mailbox("info@straße.example"), "To: info@xn--strae-oqa.example"),  # IDNA 2008: not "strasse"
        (Mailbox("jürgen@xn--bcher-kva.example", "J"), "To: J <jürgen@xn--bcher-kva.example>"),  # SMTPUTF8
    ],
)
def test_a_mailbox_is_written_so_that_it_is_read_as_one(mailbox, line):
    assert line.encode() in build(an_envelope(recipient=mailbox)).split(b"\r\n")


# Parts ----------------------------------------------------------------------------------------------------------------


RELATED = ["multipart/related", "text/html", "image/png"]


def structure(octets: bytes) -> list[str]:
    return [part.get_content_type() for part in parsed(octets).walk()]


@pytest.mark.parametrize(
    ("text", "html", "attached", "expected"),
    [
        ("Hi", "", (), ["text/plain"]),
        ("", "<p>", (), ["text/html"]),
        ("", "", (), ["text/plain"]),
        ("Hi", "<p>", (), ["multipart/alternative", "text/plain", "text/html"]),
        ("", "<p>", (LOGO,), RELATED),
        ("Hi", "", (LOGO, TERMS), ["multipart/mixed", "text/plain", "image/png", "application/pdf"]),
        (
            "Hi",
            "<p>",
            (TERMS, LOGO),
            ["multipart/mixed", "multipart/alternative", "text/plain", *RELATED, "application/pdf"],
        ),
    ],
)
def test_parts_are_nested_by_what_they_are_for(text, html, attached, expected):
    envelope = an_envelope(text=text, html=html, frame=replace(FRAME, attachments=attached))

    assert structure(build(envelope)) == expected


def test_one_frame_serves_envelopes_of_different_parts():
    compiled = compile_frame(replace(FRAME, attachments=(TERMS,)))

    mails = [compiled.build(an_envelope(html=html)) for html in ("", "<p>", "")]

    assert [structure(mail) for mail in mails] == [
        ["multipart/mixed", "text/plain", "application/pdf"],
        ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/pdf"],
        ["multipart/mixed", "text/plain", "application/pdf"],
    ]


def test_the_parameters_of_an_attachments_type_are_kept():
    invitation = Attachment("invite.ics", "text/calendar; method=REQUEST; charset=utf-8", b"BEGIN:VCALENDAR\r\n")

    (part,) = parsed(build(with_attachment(invitation))).iter_attachments()

    assert dict(part["Content-Type"].params) == {"method": "REQUEST", "charset": "utf-8"}
    assert part.get_payload(decode=True) == b"BEGIN:VCALENDAR\r\n"


@pytest.mark.parametrize(
    ("filename", "parameter"),
    [
        ("terms (2).pdf", 'filename="terms (2).pdf"'),
        ('6" pipe.pdf', "filename*=utf-8''6%22%20pipe.pdf"),
        ("=?utf-8?q?x?=.pdf", "filename*=utf-8''%3D%3Futf-8%3Fq%3Fx%3F%3D.pdf"),
        ("Größe.pdf", "filename*=utf-8''Gr%C3%B6%C3%9Fe.pdf"),
        (
            "日本語の規約.pdf",
            "filename*0*=utf-8''%E6%97%A5%E6%9C%AC%E8%AA%9E%E3%81%AE%E8%A6%8F;\r\n filename*1*=%E7%B4%84.pdf",
        ),
    ],
)
def test_a_file_name_goes_in_quotes_or_by_rfc_2231(filename, parameter):
    octets = build(with_attachment(replace(TERMS, filename=filename)))

    assert f"\r\nContent-Disposition: attachment;\r\n {parameter}\r\n".encode() in octets


def test_a_related_part_names_the_type_of_its_root():
    related = parsed(build(an_envelope(text="", html="<p>", frame=replace(FRAME, attachments=(LOGO,)))))

    assert related["Content-Type"].params["type"] == "text/html"  # RFC 2387 §3.1


def test_an_attachment_without_a_name_gets_none():
    nameless = replace(LOGO, filename=" ")

    octets = build(an_envelope(html="<p>", frame=replace(FRAME, attachments=(nameless,))))

    assert b"\r\nContent-Disposition: inline\r\n" in octets


# Compiled once --------------------------------------------------------------------------------------------------------


class CountingCompiler:
    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def __call__(self, frame: Frame):
        self.frames.append(frame)
        return compile_frame(frame)


def test_a_frame_is_compiled_once_however_many_envelopes_it_has():
    one, other = replace(FRAME), replace(FRAME)
    compiler = CountingCompiler()
    builder = Builder(compile_frame=compiler)

    mails = [builder(an_envelope(frame=frame, subject=f"No. {n}")) for n in range(5) for frame in (one, other)]

    assert compiler.frames == [one, other]
    assert mails == [build(an_envelope(subject=f"No. {n}")) for n in range(5) for _ in (one, other)]


def test_a_builder_keeps_no_more_frames_than_it_may():
    first, second, third = replace(FRAME), replace(FRAME), replace(FRAME)
    compiler = CountingCompiler()
    builder = Builder(keep=2, compile_frame=compiler)

    for frame in (first, second, first, third, first, second):
        builder(an_envelope(frame=frame))

    assert compiler.frames == [first, second, third, second]


# Refused --------------------------------------------------------------------------------------------------------------

INJECTION = "x\r\nBcc: victim@example.com"
CONTROLS = ["\r", "\n", "\0", "\t", "\x0b", "\x1b", "\x7f", "\x85", "\x9f", "\ud800"]


@pytest.mark.parametrize("bad", [INJECTION, *(f"a{control}b" for control in CONTROLS)])
@pytest.mark.parametrize(
    ("header", "with_value"),
    [
        ("Subject", lambda bad: an_envelope(subject=bad)),
        ("To", lambda bad: an_envelope(recipient=Mailbox("jane@example.org", bad))),
        ("To", lambda bad: an_envelope(recipient=Mailbox(f"{bad}@example.org"))),
        ("To", lambda bad: an_envelope(recipient=Mailbox(f'"{bad}"@example.org'))),
        ("To", lambda bad: an_envelope(recipient=Mailbox(f"jane@{bad}.example"))),
        ("Message-ID", lambda bad: an_envelope(message_id=f"{bad}@example.com")),
        ("X-Tag", lambda bad: an_envelope(headers=(("X-Tag", bad),))),
        ("X-Tag", lambda bad: an_envelope(frame=replace(FRAME, headers=(("X-Tag", bad),)))),
        ("header", lambda bad: an_envelope(headers=((bad, "value"),))),
        ("From", lambda bad: an_envelope(frame=replace(FRAME, sender=Mailbox("news@example.com", bad)))),
        ("Reply-To", lambda bad: an_envelope(frame=replace(FRAME, reply_to=Mailbox("news@example.com", bad)))),
        ("Content-Disposition", lambda bad: with_attachment(replace(TERMS, filename=bad))),
        ("Content-Type", lambda bad: with_attachment(replace(TERMS, content_type=f"a/b; c={bad}"))),
        ("Content-ID", lambda bad: with_attachment(replace(LOGO, content_id=bad))),
    ],
)
def test_a_control_character_in_a_header_is_refused_and_the_header_named(header, with_value, bad):
    with pytest.raises(ValueError, match=header):
        build(with_value(bad))


def with_attachment(attachment: Attachment) -> Envelope:
    return an_envelope(frame=replace(FRAME, attachments=(attachment,)))


@pytest.mark.parametrize(
    "address", ["a@b.example>, <evil@x.example", "a@b.example, c@d.example", "a b@c.example", "a", "@"]
)
def test_an_address_that_would_be_read_as_something_else_is_refused(address):
    with pytest.raises(ValueError, match="header To cannot hold"):
        build(an_envelope(recipient=Mailbox(address)))


IMPOSSIBLE_NAMES = ["", "X Tag", "X-Tag:", "Ünicode", "X" * 71]


@pytest.mark.parametrize(
    "name",
    [
        "Subject",
        "FROM",
        "to",
        "Date",
        "Message-Id",
        "Reply-To",
        "MIME-Version",
        "Content-Type",
        "content-x",
        "Bcc",
        *IMPOSSIBLE_NAMES,
    ],
)
def test_a_header_that_is_not_free_is_refused_at_compile_and_at_build(name):
    with pytest.raises(ValueError, match=f"header '?{name}"):
        compile_frame(replace(FRAME, headers=((name, "x"),)))
    with pytest.raises(ValueError, match=f"header '?{name}"):
        compile_frame(FRAME).build(an_envelope(headers=((name, "x"),)))


def test_a_header_that_may_come_once_is_refused_a_second_time():
    twice = (("List-Unsubscribe", "<https://a.example>"), ("list-unsubscribe", "<https://b.example>"))
    compiled = compile_frame(replace(FRAME, headers=twice[:1]))

    with pytest.raises(ValueError, match="header list-unsubscribe is given twice"):
        compile_frame(replace(FRAME, headers=twice))
    with pytest.raises(ValueError, match="header list-unsubscribe is given twice"):
        compiled.build(an_envelope(headers=twice[1:]))
    assert compiled.build(an_envelope()).count(b"List-Unsubscribe") == 1


def test_a_header_may_come_again_where_nothing_forbids_it():
    tags = (("X-Tag", "one"), ("X-Tag", "two"))

    read = parsed(build(an_envelope(frame=replace(FRAME, headers=tags), headers=tags[:1])))

    assert read.get_all("X-Tag") == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("envelope", "sentence"),
    [
        (
            an_envelope(headers=(("List-Unsubscribe", f"<https://a.example/{'x' * 900}>"),)),
            "header List-Unsubscribe has a",
        ),
        (an_envelope(text="half \ud83d of an emoji"), "text/plain part has half a surrogate pair at character 5"),
        (an_envelope(date=datetime(2026, 8, 31)), "header Date needs an aware datetime"),
        (with_attachment(replace(TERMS, content_type="message/rfc822")), "'message/rfc822' cannot be attached"),
        (with_attachment(replace(TERMS, content_type="pdf")), "'pdf' cannot be attached"),
    ],
)
def test_what_no_mail_can_carry_is_refused_with_a_sentence(envelope, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build(envelope)


def test_the_same_instant_in_two_zones_is_written_in_each():
    instant = datetime(2026, 1, 1, 12, tzinfo=UTC)
    elsewhere = instant.astimezone(timezone(timedelta(hours=1)))

    written = [str(parsed(build(an_envelope(date=date)))["Date"]) for date in (instant, elsewhere)]

    assert written == ["Thu, 01 Jan 2026 12:00:00 +0000", "Thu, 01 Jan 2026 13:00:00 +0100"]
