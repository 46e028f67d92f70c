"""Resolve the name of a model or data set: a folder, a package's folder, or a hub id."""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

from kdedge.errors import MachineError, UsageError

PACKAGE = "package:"


def resolve_model_path(name: str) -> Path | None:
    """Return the folder that `name` means, or None if it can only be a hub id.

    `package:NAME/FOLDER` is FOLDER inside the installed package NAME, which is not imported.

    Raises:
        MachineError: If the package is not installed.
        UsageError: If the folder is not inside the package.
    """
    if not name.startswith(PACKAGE):
        return _existing_folder(Path(name))
    package, _, inside = name.removeprefix(PACKAGE).partition("/")
    spec = PathFinder.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        pip_name = package.replace("_", "-")
        raise MachineError(
            f"{name} names a package that is not installed",
            package,
            f'pip install {pip_name}, or pip install "kdedge-toolkit[quickstart]"',
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    folder = _existing_folder(root / inside)
    if folder is None or not folder.resolve().is_relative_to(root):
        raise UsageError(
            "package:NAME/FOLDER names a folder inside the package",
            f"{inside!r} in {package}",
            "list the folders of the package",
        )
    return folder.resolve()


def loadable_name(name: str) -> str:
    """Return what Hugging Face's `from_pretrained` reads: an existing folder, or a hub id.

    Raises:
        MachineError: If a package is not installed.
        UsageError: If a folder does not exist, and the name cannot be a hub id.
    """
    folder = resolve_model_path(name)
    if folder is not None:
        return str(folder)
    if name.startswith(("/", "~", "./", "../")) or name.count("/") > 1:
        raise UsageError(
            "there is no such folder",
            name,
            f"check the name; a relative one starts from the working directory, {Path.cwd()}",
        )
    return name


def require_model_folder(folder: Path) -> None:
    """Raise UsageError unless the folder holds a model."""
    if not (folder / "config.json").is_file():
        raise UsageError(
            "this folder holds no model",
            f"{folder} has no config.json",
            "name a folder with config.json, model.safetensors and tokenizer.json",
        )


def short_name(name: str) -> str:
    """Return a model's name for reports: the last part of an absolute path, else the name."""
    return Path(name).name if Path(name).is_absolute() else name


def _existing_folder(path: Path) -> Path | None:
    try:
        folder = path.expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long for a file, ~nobody, or a NUL
        return None
