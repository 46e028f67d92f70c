"""Walk the fields of a protobuf message without a schema and without copying."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Value = int | memoryview


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield number and value of every field: an integer, or the bytes of anything else.

    Raises:
        ValueError: If the bytes are not a protobuf message.
    """
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError(f"there is no field 0, at byte {position}")
        if kind == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == BYTES:
            size, position = _varint(message, position)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"there is no field type {kind}, at byte {position}")
        if size > end - position:
            raise ValueError(f"a field ends behind its message, at byte {position}")
        yield number, message[position : position + size]
        position += size


def varints(packed: Value) -> Iterator[int]:
    """Yield the integers of a repeated field, which may be packed."""
    if isinstance(packed, int):
        yield packed
        return
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield value


def text(value: Value) -> str:
    """Decode a string field. Raises ValueError if it is not a string."""
    return part(value).tobytes().decode("utf-8")


def part(value: Value) -> memoryview:
    """Return the bytes of a nested message. Raises ValueError if the field is a number."""
    if isinstance(value, int):
        raise ValueError("a field is a number instead of a message")
    return value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise ValueError(f"a number does not end, at byte {position}")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
