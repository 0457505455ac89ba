"""The size of a parquet file's row groups, which polars does not tell.

Source: the format's `parquet.thrift`. The footer is a `FileMetaData` in Thrift's compact protocol, then its
length (4 bytes, little endian) and the mark `PAR1`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROW_GROUPS, _TOTAL_BYTE_SIZE = 4, 2  # field numbers in FileMetaData and RowGroup
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


def first_group_bytes(path: Path) -> int:
    """Bytes of the first row group, decompressed; 0 when the footer does not say.

    Writers make all groups of a file alike, the last aside. A damaged footer is the reader's to report.
    """
    try:
        with path.open("rb") as file:
            file.seek(-8, 2)
            tail = file.read(8)
            file.seek(-8 - int.from_bytes(tail[:4], "little"), 2)
            return _first_group(_Reader(file.read(int.from_bytes(tail[:4], "little"))))
    except (OSError, IndexError, ValueError, RecursionError):
        return 0


def _first_group(footer: _Reader) -> int:
    for number, kind in footer.fields():
        if number == _ROW_GROUPS and kind == _LIST:
            n, _ = footer.list_header()
            for inner, inner_kind in footer.fields() if n else ():
                if inner == _TOTAL_BYTE_SIZE:
                    return footer.zigzag()
                footer.skip(inner_kind)
            return 0
        footer.skip(kind)
    return 0


class _Reader:
    """A cursor over a value in the compact protocol."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; the caller reads or skips the value before the next."""
        number = 0
        while header := self.byte():
            number = number + (header >> 4) if header >> 4 else self.zigzag()
            yield number, header & 0x0F

    def list_header(self) -> tuple[int, int]:
        """Length and element type of a list."""
        header = self.byte()
        return (header >> 4 if header >> 4 < 15 else self.varint()), header & 0x0F

    def skip(self, kind: int) -> None:
        """Pass over a value of a type."""
        if kind in (_TRUE, _FALSE):
            return  # a field's type says which it is
        if kind == _BYTE:
            self.at += 1
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            length = self.varint()
            self.at += length
        elif kind in (_LIST, _SET):
            n, element = self.list_header()
            for _ in range(n):
                self.skip(_BYTE if element in (_TRUE, _FALSE) else element)
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner)
        elif kind == _MAP:
            raise ValueError("parquet metadata holds no map")
        else:
            self.varint()
