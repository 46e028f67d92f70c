"""The digest of a manifest: one line that identifies every byte of a bundle."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from kdedge.errors import IntegrityError, UsageError

DIGEST = "digest"
"""The field of kdedge.json that the digest does not cover: it holds the digest."""

PREFIX = "sha256:"
PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


def canonical_json(document: Any) -> bytes:
    """Write a document in canonical form: equal documents give equal bytes.

    Keys are sorted, there is no white space, and the encoding is UTF-8.

    Raises:
        ValueError: If a number is NaN or infinite, or a text is not valid Unicode.

    Example:
        >>> canonical_json({"b": [1, 2.0], "a": "é"})
        b'{"a":"\\xc3\\xa9","b":[1,2.0]}'
    """
    text = json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def document_digest(document: Mapping[str, Any]) -> str:
    """Return `sha256:` and the SHA-256 of a parsed kdedge.json without its own digest."""
    covered = {name: value for name, value in document.items() if name != DIGEST}
    return PREFIX + hashlib.sha256(canonical_json(covered)).hexdigest()


def require_digest(found: str, pinned: str | None) -> None:
    """Compare a bundle's digest with the one that a user has pinned.

    Args:
        found: The digest of the bundle.
        pinned: The expected digest; None accepts every bundle.

    Raises:
        UsageError: If `pinned` is not a digest.
        IntegrityError: If the two differ.
    """
    if pinned is None:
        return
    if not PATTERN.fullmatch(pinned):
        raise UsageError(
            "a digest is `sha256:` and 64 hexadecimal digits",
            repr(pinned)[:100],
            "copy the digest that `kdedge info BUNDLE` prints",
        )
    if found != pinned:
        raise IntegrityError(
            "this is another bundle than the pinned one",
            f"its digest is   {found}\npinned digest is {pinned}",
            "use the bundle with the pinned digest, or pin the new digest if you trust it",
        )
