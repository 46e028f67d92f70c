"""Words for messages: counts, lists, shortened texts, and the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def counted(number: int, noun: str) -> str:
    """Write a number with its noun.

    Example:
        >>> counted(1, "fault"), counted(3, "fault")
        ('1 fault', '3 faults')
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}s"


def listed(names: Sequence[str], most: int) -> str:
    """List the first names, and how many more there are; names with commas are in quotes.

    Example:
        >>> listed(["a", "b", "c"], 2)
        'a, b and 1 more'
        >>> listed(["a, b", "c"], 2)
        '"a, b", c'
    """
    text = ", ".join(f'"{name}"' if "," in name else name for name in names[:most])
    if len(names) > most:
        text += f" and {len(names) - most} more"
    return text


def shortened(text: str, length: int) -> str:
    """Cut a text to `length` characters; three dots show that it was longer."""
    if len(text) <= length:
        return text
    return text[: length - 3] + "..."


def nearest_or_known(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Write a hint for an unknown name: the nearest of `names`, else all of them.

    Args:
        name: What a user wrote.
        names: The names that exist.
        cutoff: How near a name must be, from 0 to 1.

    Example:
        >>> nearest_or_known("tread", ["threads", "seconds"])
        'did you mean threads?'
    """
    known = list(names)
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(known)}"
