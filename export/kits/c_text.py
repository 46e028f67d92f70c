"""Writes numbers and bytes as C source that gcc and clang compile quickly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

LINE = 96
"""Most characters of a line of numbers or bytes."""

NOT_LITERAL = b'"\\?'
"""Printable characters that need an escape; "?" could begin a trigraph."""


def c_array(kind: str, name: str, values: Iterable[int | float]) -> str:
    """Return the definition of a constant array; an empty one gets a 0, as C demands."""
    words = [_number(value) for value in values] or ["0"]
    lines = [f"static const {kind} {name}[{len(words)}] = {{"]
    line = ""
    for word in words:
        if len(line) + len(word) + 1 > LINE:
            lines.append(line)
            line = ""
        line += word + ","
    return "\n".join([*lines, line, "};\n"])


def _number(value: int | float) -> str:
    """Write a float32 without loss as a hexadecimal literal."""
    if isinstance(value, int | np.integer):
        return str(int(value))
    return float(np.float32(value)).hex() + "f"


def c_bytes(kind: str, name: str, content: bytes) -> str:
    """Return the definition of a constant array of chars as a string literal.

    A literal of many bytes compiles much faster than numbers do.
    """
    return f"static const {kind} {name}[{len(content) + 1}] =\n{c_string(content)};\n"


def c_string(content: bytes) -> str:
    """Return bytes as a string literal in lines of at most about `LINE` characters."""
    lines = []
    for start in range(0, len(content), LINE // 2):
        lines.append(
            '"' + "".join(map(ESCAPED.__getitem__, content[start : start + LINE // 2])) + '"'
        )
    return "\n".join(lines or ['""'])


def _escaped(byte: int) -> str:
    """Write one byte of a string literal; three octal digits never take in the next byte."""
    if 32 <= byte < 127 and byte not in NOT_LITERAL:
        return chr(byte)
    return f"\\{byte:03o}"


ESCAPED = [_escaped(byte) for byte in range(256)]


def c_macros(values: dict[str, object]) -> str:
    """Return one #define for each name."""
    return "".join(f"#define {name} {value}\n" for name, value in values.items())


def starts(parts: Sequence[Sequence[object] | bytes]) -> list[int]:
    """Return where each part begins if they are joined, and where the last one ends."""
    positions = [0]
    for part in parts:
        positions.append(positions[-1] + len(part))
    return positions
