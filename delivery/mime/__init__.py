"""Envelope -> the octets of a mail (RFC 5322, MIME): compiled once per frame, spliced per recipient.

Every line ends in CRLF and everything is 7-bit; the one exception is an address whose local part is not ASCII, which
stays UTF-8 in its header, as RFC 6532 has it: such a mail may only go to a server that announces SMTPUTF8. Dot-stuffing
is left to SMTP. Knows no engine, no clock and no chance.

A value that no header can carry is a ValueError that names the header. Spaces around a header value are dropped;
everything else arrives as it was written, bodies with a line end after their last line.
"""

from delivery.mime.message import Builder, CompiledFrame, compile_frame

__all__ = ["Builder", "CompiledFrame", "compile_frame"]
