"""A signature names the person who exported a bundle: a forger cannot write one."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kdedge.cli.export import export
from kdedge.cli.verify import verify
from kdedge.errors import IntegrityError, MachineError, UsageError
from kdedge.io import optional
from kdedge.runtime import Bundle, Classifier, Manifest
from kdedge.runtime.bundle_source import open_bundle
from kdedge.runtime.layout import MANIFEST, SIGNATURE
from kdedge.runtime.manifest import write_manifest
from kdedge.runtime.signature import (
    read_private_key,
    read_public_key,
    sign_bundle,
    verify_signature,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)


def write_keys(folder: Path, name: str = "key") -> tuple[Path, Path]:
    """Write a new private and public key, and return their files."""
    key = Ed25519PrivateKey.generate()
    private = folder / f"{name}.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = folder / f"{name}.pub.pem"
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def forge(folder: Path) -> None:
    """Replace a file, write new hashes and a new digest, and keep the signature."""
    (folder / "README.md").write_text("forged")
    document = json.loads((folder / MANIFEST).read_text())
    write_manifest(folder, Manifest.from_json(document))


def test_a_signed_bundle_opens_and_its_signature_verifies(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    sign_bundle(Bundle.open(bundle), read_private_key(private))
    opened = Bundle.open(bundle)
    verify_signature(opened, read_public_key(public))
    assert SIGNATURE not in opened.manifest.files
    assert Classifier.load(bundle).predict("the film was good").label in ("bad", "good")


def test_a_forged_bundle_and_another_key_are_refused(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    _, stranger = write_keys(tmp_path, "stranger")
    sign_bundle(Bundle.open(bundle), read_private_key(private))
    with pytest.raises(IntegrityError, match="not of this key"):
        verify_signature(Bundle.open(bundle), read_public_key(stranger))
    forge(bundle)
    Bundle.open(bundle).verify_files()  # Hashes alone do not find a forger.
    with pytest.raises(IntegrityError, match="not of this key and this bundle"):
        verify_signature(Bundle.open(bundle), read_public_key(public))


@pytest.mark.slow
def test_every_flipped_bit_of_a_signature_is_refused(bundle: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    path = sign_bundle(Bundle.open(bundle), read_private_key(private))
    key, content = read_public_key(public), path.read_bytes()
    signature = json.loads(content)["signature"]
    opened = Bundle.open(bundle)
    start = content.index(signature.encode())
    for place in range(start, start + len(signature) - 3):
        for bit in range(7):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(bytes(flipped))
            with pytest.raises(IntegrityError):
                verify_signature(opened, key)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 4000, b"0" * 5000])
def test_a_damaged_signature_is_an_integrity_error(
    bundle: Path, tmp_path: Path, content: bytes
) -> None:
    _, public = write_keys(tmp_path)
    (bundle / SIGNATURE).write_bytes(content)
    with pytest.raises(IntegrityError, match=r"kdedge\.sig"):
        verify_signature(Bundle.open(bundle), read_public_key(public))


def test_an_unsigned_bundle_has_no_valid_signature(bundle: Path, tmp_path: Path) -> None:
    _, public = write_keys(tmp_path)
    with pytest.raises(IntegrityError, match="not signed"):
        verify_signature(Bundle.open(bundle), read_public_key(public))


def test_other_keys_are_usage_errors(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    other = tmp_path / "x25519.pem"
    content = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    other.write_bytes(content)
    for path in (public, other, tmp_path / "missing.pem"):
        with pytest.raises(UsageError, match="key"):
            read_private_key(path)
    with pytest.raises(UsageError, match="no public ed25519 key"):
        read_public_key(private)


def test_a_key_with_a_password_is_not_to_be_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    encrypted = BestAvailableEncryption(b"a password")
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted))
    with pytest.raises(UsageError, match="has a password") as error:
        read_private_key(path)
    hint = error.value.hint
    assert hint is not None and f"-in {path}" in hint and f"-out {path}" not in hint


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    names = [name for name in __import__("sys").modules if name.startswith("cryptography.")]
    for name in names:
        monkeypatch.delitem(__import__("sys").modules, name)
    assert optional.extra_of("cryptography") == "sign"
    with pytest.raises(MachineError, match=r"kdedge-toolkit\[sign\]"):
        read_public_key(tmp_path / "key.pem")


def test_the_commands_sign_and_verify(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    _, stranger = write_keys(tmp_path, "stranger")
    bundle = factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)
    done = CliRunner().invoke(export, [str(tmp_path), "--sign", str(public)])
    assert isinstance(done.exception, UsageError), "a wrong key is reported first"
    sign_bundle(Bundle.open(bundle), read_private_key(private))
    done = CliRunner().invoke(verify, [str(bundle), "--key", str(public)])
    assert done.exit_code == 0 and "the signature is of the key" in done.output
    assert Bundle.open(bundle).manifest.digest() in done.output
    done = CliRunner().invoke(verify, [str(bundle), "--key", str(stranger)])
    assert isinstance(done.exception, IntegrityError)
    pinned = ["--digest", "sha256:" + "0" * 64]
    done = CliRunner().invoke(verify, [str(bundle), *pinned])
    assert isinstance(done.exception, IntegrityError)


def test_a_zip_keeps_its_signature(bundle: Path, tmp_path: Path) -> None:
    import shutil

    private, _ = write_keys(tmp_path)
    sign_bundle(Bundle.open(bundle), read_private_key(private))
    archive = shutil.make_archive(str(tmp_path / "bundle"), "zip", bundle)
    digest = Bundle.open(bundle).manifest.digest()
    assert open_bundle(archive, digest).manifest.digest() == digest
    with pytest.raises(IntegrityError, match="pinned"):
        open_bundle(archive, "sha256:" + "1" * 64)
