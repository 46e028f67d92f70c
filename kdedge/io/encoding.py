"""Open text files strictly: undecodable bytes are errors that name the line."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from kdedge.errors import DataError, UsageError
from kdedge.io.faults import shown

# utf-32 comes first, because its byte order mark begins with that of utf-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@contextmanager
def open_text(path: Path, encoding: str = "utf-8", newline: str = "\n") -> Iterator[TextIO]:
    """Open a file for reading, without its byte order mark.

    Args:
        path: The file.
        encoding: A codec, or several such as `utf-8, latin-1`: the first that fits the file.
        newline: As in `open`.

    Raises:
        DataError: If a byte does not fit; names the line and an encoding that may fit.
        UsageError: If the file cannot be read or no such encoding exists.
    """
    encoding = _first_fitting(path, encoding)
    try:
        with path.open("rb") as file:
            codec = _codec_of_file(path, file, encoding)
            with io.TextIOWrapper(file, encoding=codec, newline=newline) as stream:
                yield stream
    except UnicodeDecodeError as error:
        raise _misfit(path, codec, error) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            "a file cannot be read",
            f"{shown(str(path))}: {reason}",
            "check its name and its access rights",
        ) from error


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Read a whole file; arguments and errors as for `open_text`."""
    with open_text(path, encoding) as stream:
        return stream.read()


def _first_fitting(path: Path, encodings: str) -> str:
    """Return the first encoding that fits the whole file; the first of all if none does."""
    names = [name.strip() for name in encodings.split(",")]
    if len(names) == 1:
        return names[0]
    for name in names:
        try:
            read_text(path, name)
        except DataError:
            continue
        return name
    return names[0]


def _codec_of_file(path: Path, file: io.BufferedReader, encoding: str) -> str:
    """Return the codec that fits the encoding and the byte order mark; skip the mark."""
    codec = _known_codec(encoding)
    head = file.peek()
    for mark, marked in BYTE_ORDER_MARKS.items():
        if not head.startswith(mark):
            continue
        family = marked.removesuffix("-le").removesuffix("-be")
        if not codec.replace("_", "-").startswith(family):
            raise DataError(
                f"{path}:1: the file is marked as {family}",
                f"it is read as {encoding}",
                _encoding_hint(family),
            )
        file.read(len(mark))
        return marked
    _reject_unmarked_utf16(path, head, codec)
    return codec


def _reject_unmarked_utf16(path: Path, head: bytes, codec: str) -> None:
    """Raise DataError for utf-16 without a byte order mark, which utf-8 would decode.

    In utf-16 every Latin letter has a NUL byte, which is valid in utf-8.
    """
    nul_odd = head[1::2].count(0)
    nul_even = head[::2].count(0)
    if not codec.startswith(("utf-16", "utf-32")) and max(nul_odd, nul_even) > len(head) // 4:
        likely = "utf-16-le" if nul_odd > nul_even else "utf-16-be"
        raise DataError(
            f"{path}:1: the file looks like {likely}, not {codec}",
            f"{nul_odd + nul_even} of the first {len(head)} bytes are NUL",
            _encoding_hint(likely),
        )


def _known_codec(encoding: str) -> str:
    try:
        "".encode(encoding)
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise UsageError(
            "there is no such text encoding",
            f"data.encoding = {encoding!r}",
            'name one, such as "utf-8", "latin-1" or "utf-16"',
        ) from error


def _misfit(path: Path, codec: str, error: UnicodeDecodeError) -> DataError:
    """Return the error for the first undecodable byte, with its line in the whole file."""
    content = path.read_bytes()
    try:
        content.decode(codec)
    except UnicodeDecodeError as whole:
        error = whole
    line = content[: error.start].decode(codec, "replace").count("\n") + 1
    byte = content[error.start : error.start + 1].hex()
    likely = _likely_encoding(content)
    return DataError(
        f"{path}:{line}: byte 0x{byte} at offset {error.start} is not {codec}",
        error.reason,
        _encoding_hint(likely),
    )


def _encoding_hint(likely: str) -> str:
    """Return a hint for recipes, for `kdedge init`, and for options, which read utf-8 alone."""
    return (
        f'save the file as utf-8, or, in a recipe, set data.encoding = "{likely}" (kdedge init: '
        f"--encoding {likely})"
    )


def _likely_encoding(content: bytes) -> str:
    """Return the likeliest of three encodings; latin-1 is the fallback."""
    has_windows_bytes = any(0x80 <= byte < 0xA0 for byte in set(content))
    for encoding in ("utf-8", "cp1252") if has_windows_bytes else ("utf-8",):
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"
