"""Sign a bundle with an ed25519 key, and verify the signature."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdedge.errors import IntegrityError, UsageError, first_line
from kdedge.io.atomic import json_text, write_atomic
from kdedge.io.optional import named_extra
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.layout import SIGNATURE
from kdedge.runtime.verified_file import read_regular_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

ALGORITHM = "ed25519"
MAX_SIGNATURE_BYTES = 4096
MAX_KEY_BYTES = 64 << 10

PURPOSE = b"kdedge bundle "
"""Start of the signed message, so that no signature of another purpose fits a bundle."""


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read an ed25519 private key from a PEM file without a password.

    Raises:
        UsageError: If the file holds no such key.
        MachineError: If the package `cryptography` is not installed.
    """
    with named_extra("a signature"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    content = _read_key(path)
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise UsageError(
            "the private key has a password, which kdedge cannot ask for",
            f"{path}: {first_line(error)}",
            f"write a copy without it: openssl pkey -in {path} -out NEW-FILE.pem",
        ) from error
    except (ValueError, _unsupported()) as error:
        raise _no_key("private", path, first_line(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key("private", path, f"the file holds a {type(key).__name__}")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read an ed25519 public key from a PEM file. Errors as for `read_private_key`."""
    with named_extra("a signature"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    content = _read_key(path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, TypeError, _unsupported()) as error:
        raise _no_key("public", path, first_line(error)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key("public", path, f"the file holds a {type(key).__name__}")
    return key


def sign_bundle(bundle: Bundle, key: Ed25519PrivateKey) -> Path:
    """Write `kdedge.sig` into a bundle: a signature over the digest of its manifest.

    Example:
        ```python
        sign_bundle(Bundle.open("bundle"), read_private_key(Path("key.pem")))
        ```
    """
    digest = bundle.manifest.digest()
    signature = base64.b64encode(key.sign(PURPOSE + digest.encode())).decode()
    document = {"algorithm": ALGORITHM, "digest": digest, "signature": signature}
    path = bundle.folder / SIGNATURE
    write_atomic(path, json_text(document))
    return path


def verify_signature(bundle: Bundle, key: Ed25519PublicKey) -> None:
    """Check that the owner of a key signed this bundle.

    Raises:
        IntegrityError: If the bundle has no signature, or it does not match the key and the
            bundle.
    """
    from cryptography.exceptions import InvalidSignature

    signature = _read_signature(bundle)
    try:
        key.verify(signature, PURPOSE + bundle.manifest.digest().encode())
    except InvalidSignature as error:
        raise IntegrityError(
            "the signature is not of this key and this bundle",
            f"{SIGNATURE} does not match the digest {bundle.manifest.digest()}",
            "do not use this bundle, or name the key of the person who signed it",
        ) from error


def _read_signature(bundle: Bundle) -> bytes:
    if not (bundle.folder / SIGNATURE).exists():
        raise IntegrityError(
            "the bundle is not signed",
            f"it has no {SIGNATURE}",
            "ask its author to run `kdedge export --sign KEY.pem`",
        )
    content = read_regular_file(bundle.folder, SIGNATURE, max_bytes=MAX_SIGNATURE_BYTES)
    try:
        document: Any = json.loads(content)
        if document["algorithm"] != ALGORITHM:
            raise ValueError(f"algorithm is {document['algorithm']!r}")
        return base64.b64decode(document["signature"], validate=True)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise IntegrityError(
            f"{SIGNATURE} of the bundle is damaged",
            first_line(error),
            "copy the bundle again from its source",
        ) from error


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(
            "the key cannot be read", f"{path}: {error.strerror}", "check its name and its rights"
        ) from error


def _no_key(kind: str, path: Path, reason: str) -> UsageError:
    command = "openssl genpkey -algorithm ed25519 -out NEW-FILE.pem"
    if kind == "public":
        command = "openssl pkey -in PRIVATE-KEY.pem -pubout -out NEW-FILE.pem"
    return UsageError(
        f"this file is no {kind} ed25519 key in PEM format",
        f"{path}: {reason}",
        f"make one: {command}",
    )
