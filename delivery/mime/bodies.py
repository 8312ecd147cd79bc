"""Bodies and attachments -> octets of a MIME part: transfer encodings, and the header fields of the part.

Everything comes out 7-bit, with CRLF line ends and lines of at most 76 octets, and nothing in it can be taken for a
boundary. Knows nothing of the mail that a part belongs to.
"""

import re
from binascii import b2a_base64, b2a_qp

from delivery.core.envelope import Attachment
from delivery.mime.headers import MESSAGE_ID, cut, escaped, extra_header, refuse_controls

_CONTENT_TYPE = re.compile(r"([\w!#$&^.+-]+)/[\w!#$&^.+-]+(?: *;[ -~]*)?", re.ASCII)
_PLAIN_FILENAME = re.compile(r"(?!.*=\?)[ !#-\[\]-~]{1,60}")

_PLAIN_OCTETS = bytes(range(32, 127)) + b"\t\r\n"
# RFC 2231 §7, attribute-char.
_PARAMETER_LITERAL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~"
_PERCENT = [chr(octet) if octet in _PARAMETER_LITERAL else f"%{octet:02X}" for octet in range(256)]

_OVERLONG_QP_LINE = re.compile(rb"^(.{74})(=20|=09)\r$", re.MULTILINE)
_FROM_AT_LINE_START = re.compile(rb"^From ", re.MULTILINE)


def text_part(subtype: str, text: str) -> tuple[bytes, bytes]:
    """Headers and body of a text part: as it is if that is safe, else quoted-printable or base64."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text/{subtype} part has half a surrogate pair at character {error.start}") from error
    beyond_ascii = len(data) - len(text)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not data.endswith(b"\n"):
        data += b"\n"  # also makes b2a_qp, which goes by the first line end, write its soft breaks as CRLF
    data = data.replace(b"\n", b"\r\n")
    if not beyond_ascii and _is_plain(data):
        encoding, body = "7bit", data
    # Two escapes for each, two octets longer: exact for Latin, Cyrillic and Greek. Base64 makes 1.37 of everything.
    elif 11 * beyond_ascii > len(data):
        encoding, body = "base64", _base64(data) + b"\r\n"
    else:
        encoding, body = "quoted-printable", _quoted_printable(data)
    header = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return header.encode(), body


def _is_plain(data: bytes) -> bool:
    """Whether nothing on the way has a reason to alter it, and no line of it can be taken for a boundary."""
    return (
        max(map(len, data.split(b"\r\n"))) <= 76
        and not data.translate(None, _PLAIN_OCTETS)
        and b"=_" not in data
        and b" \r\n" not in data
        and b"\t\r\n" not in data
        and not data.startswith(b"From ")
        and b"\nFrom " not in data
    )


def _quoted_printable(data: bytes) -> bytes:
    body = b2a_qp(data)
    if b"=20\r\n" in body or (b"\t" in data and b"=09\r\n" in body):
        # b2a_qp escapes a blank at the end of a line after it has counted the line: it may come out as 77 octets.
        body = _OVERLONG_QP_LINE.sub(rb"\1=\r\n\2\r", body)
    if body.startswith(b"From ") or b"\nFrom " in body:
        # Mailbox files put ">" before such lines. The soft break is for the two octets that the line gains.
        body = _FROM_AT_LINE_START.sub(b"=46rom=\r\n ", body)
    return body


def _base64(data: bytes) -> bytes:
    encoded = b2a_base64(data, newline=False)
    return b"\r\n".join([encoded[start : start + 76] for start in range(0, len(encoded), 76)])


def attachment_part(attachment: Attachment) -> bytes:
    name, content_id = attachment.filename, attachment.content_id
    kind = _CONTENT_TYPE.fullmatch(attachment.content_type)
    # RFC 2046 §5.2.1: neither may be encoded, and bytes of unknown origin cannot go without.
    if not kind or kind[1].lower() in ("multipart", "message"):
        raise ValueError(f"attachment {name!r}: Content-Type {attachment.content_type!r} cannot be attached")
    header = extra_header("Content-Type", attachment.content_type)
    header += b"Content-Transfer-Encoding: base64\r\n"
    if content_id:
        if not MESSAGE_ID.fullmatch(content_id):
            raise ValueError(f"attachment {name!r}: Content-ID cannot hold {content_id!r}")
        header += f"Content-ID: <{content_id}>\r\n".encode()
    disposition = "inline" if content_id else "attachment"
    header += f"Content-Disposition: {disposition}{_filename_parameter(name)}\r\n".encode()
    return header + b"\r\n" + _base64(attachment.content)


def _filename_parameter(filename: str) -> str:
    """As RFC 2231 has it; in plain quotes only what every reader takes the same way."""
    refuse_controls(f"Content-Disposition of attachment {filename!r}", filename)
    filename = filename.strip(" ")
    if not filename:
        return ""
    if _PLAIN_FILENAME.fullmatch(filename):
        return f';\r\n filename="{filename}"'
    pieces = [escaped(piece, _PERCENT) for piece in cut(filename, lambda x: len(escaped(x, _PERCENT)), 50, 50)]
    if len(pieces) == 1:
        return f";\r\n filename*=utf-8''{pieces[0]}"
    pieces[0] = f"utf-8''{pieces[0]}"
    return "".join(f";\r\n filename*{number}*={piece}" for number, piece in enumerate(pieces))
