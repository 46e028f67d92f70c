"""Where models and data are: a local folder, a folder inside an installed package, or a hub id."""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

from kdedge.errors import MachineError, UsageError

PACKAGE = "package:"


def resolve_model_path(name: str) -> Path | None:
    """The folder that `name` means, or None when it can only be a hub id.

    `package:NAME/FOLDER` is FOLDER inside the installed package NAME, found without importing it.
    Raises MachineError where the package is not installed, UsageError where the folder is not in it.
    """
    if not name.startswith(PACKAGE):
        return _folder_or_none(Path(name))
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
    folder = _folder_or_none(root / inside)
    if folder is None or not folder.resolve().is_relative_to(root):
        raise UsageError(
            "a package: place is a folder inside the package",
            f"{inside!r} in {package}",
            "see which folders the package holds",
        )
    return folder.resolve()


def short_name(name: str) -> str:
    """A model's name as a recipe gives it; of a folder on this machine its last part alone."""
    return Path(name).name if Path(name).is_absolute() else name


def _folder_or_none(path: Path) -> Path | None:
    """The folder, or None."""
    try:
        folder = path.expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long for a file, ~nobody, or a NUL
        return None
