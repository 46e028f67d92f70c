"""Writes numbers and bytes as C source that gcc and clang compile quickly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

LINE = 96
"""Most characters of a line of numbers or bytes."""

OCTAL_DIGITS = frozenset(b"01234567")


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
        lines.append(_literal(content[start : start + LINE // 2]))
    return "\n".join(lines or ['""'])


def _literal(content: bytes) -> str:
    parts = []
    for i, byte in enumerate(content):
        follower = content[i + 1 : i + 2]
        parts.append(_character(byte, short=not follower or follower[0] not in OCTAL_DIGITS))
    return '"' + "".join(parts) + '"'


def _character(byte: int, *, short: bool) -> str:
    """Write one byte; an octal escape needs three digits if another digit follows."""
    # "?" could begin a trigraph.
    if 32 <= byte < 127 and chr(byte) not in '"\\?':
        return chr(byte)
    return f"\\{byte:o}" if short else f"\\{byte:03o}"


def c_macros(values: dict[str, object]) -> str:
    """Return one #define for each name."""
    return "".join(f"#define {name} {value}\n" for name, value in values.items())


def starts(parts: Sequence[Sequence[object] | bytes]) -> list[int]:
    """Return where each part begins if they are joined, and where the last one ends."""
    positions = [0]
    for part in parts:
        positions.append(positions[-1] + len(part))
    return positions
