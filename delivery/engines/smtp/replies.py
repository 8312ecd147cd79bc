"""Bytes from a server -> replies. Knows what a reply looks like (RFC 5321 §4.2) and nothing of what it answers."""

from typing import NamedTuple

LONGEST_LINE = 4096  # RFC 5321 §4.5.3.1.5 says 512; longer lines are seen and harmless
LONGEST_REPLY = 65536
NONSENSE = 0


class Reply(NamedTuple):
    """A whole reply: its code, and the texts of its lines joined by newlines.

    With the code NONSENSE it is something that is no reply, in `text` as it came; nothing behind it can be trusted.
    """

    code: int
    text: bytes

    @property
    def words(self) -> str:
        """The text as a string, whatever its bytes."""
        return self.text.decode("utf-8", "replace")


class ReplyReader:
    """Collects bytes, however they are cut, and gives each reply once it is whole."""

    def __init__(self) -> None:
        self._rest = b""  # a line without its end
        self._lines: list[bytes] = []  # of a reply without its last line
        self._code = b""
        self._size = 0

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that end in these bytes. Stops at the first nonsense."""
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\n")
        self._rest = lines.pop()
        replies: list[Reply] = []
        for line in lines:
            reply = self._read(line)
            if reply is not None:
                replies.append(reply)
                if reply.code == NONSENSE:
                    return replies
        if len(self._rest) > LONGEST_LINE:
            replies.append(Reply(NONSENSE, self._rest))
        return replies

    def forget(self) -> None:
        """Drops what is not yet a whole reply."""
        self.__init__()

    def _read(self, line: bytes) -> Reply | None:
        """The reply that ends with this line; None when it goes on."""
        code = line[:3]
        mark = line[3:4]
        if not (code.isdigit() and b"200" <= code <= b"599" and mark in b" -\r") or len(line) > LONGEST_LINE:
            return Reply(NONSENSE, line)
        text = line[4:].rstrip(b"\r")
        if not self._code and mark != b"-":
            return Reply(int(code), text)

        self._size += len(line)
        if (self._code and code != self._code) or self._size > LONGEST_REPLY:
            return Reply(NONSENSE, line)
        self._code = code
        self._lines.append(text)
        if mark == b"-":
            return None
        whole = Reply(int(code), b"\n".join(self._lines))
        self._lines, self._code, self._size = [], b"", 0
        return whole
