"""A body that is a file: read piece by piece, bounded, and never in memory as a whole."""

from collections.abc import Iterator, Mapping
from tempfile import TemporaryFile
from typing import BinaryIO

from drf_spectacular.utils import OpenApiExample
from rest_framework.parsers import BaseParser

from delivery.api.parsing import TooLarge

MOST_OCTETS = 100 * 1024**2
PIECE = 64 * 1024
A_FILE = OpenApiExample(
    "Two people", "email,name,city\nada@example.test,Ada,London\n", request_only=True, media_type="text/csv"
)


class CsvFileParser(BaseParser):
    """A CSV file as it is, in whatever encoding: the answer to `request.data` is a file, at its beginning.

    It is taken over before anybody writes it anywhere: whoever sends slowly must not keep a transaction open.
    """

    media_type = "text/csv"
    most = MOST_OCTETS

    def parse(self, stream: BinaryIO, media_type: str | None = None, parser_context: Mapping | None = None) -> BinaryIO:
        length = parser_context["request"].META.get("CONTENT_LENGTH") if parser_context else None
        if length and length.isdecimal() and int(length) > self.most:
            raise self._too_large()
        file = TemporaryFile()  # noqa: SIM115 - closed by whoever reads it, or when it is forgotten
        octets = 0
        while piece := stream.read(PIECE):
            octets += len(piece)
            if octets > self.most:
                file.close()
                raise self._too_large()
            file.write(piece)
        file.seek(0)
        return file

    def _too_large(self) -> TooLarge:
        return TooLarge(f"A file has at most {self.most // 1024**2} MB: let an SQL or HTTP audience read more.")


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """The file, piece by piece; it is closed at its end."""
    with file:
        while piece := file.read(PIECE):
            yield piece
