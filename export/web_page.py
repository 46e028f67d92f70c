"""Write a bundle as a static web page that classifies texts in the browser."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from kdedge.export.cleaning import require_no_cleaning
from kdedge.export.target import check_target
from kdedge.export.web_libraries import TEMPLATES, copy_libraries, web_libraries

from kdedge.errors import CheckFailed, UsageError
from kdedge.io.atomic import remove, replace_dir
from kdedge.runtime import Bundle
from kdedge.runtime.layout import MANIFEST

PAGE_FILES = (
    "README.md",
    "bundle.js",
    "classifier.js",
    "golden.js",
    "index.html",
    "page.js",
    "style.css",
    "tokens.js",
)
"""The files of export/web/ that are copied; the others install the libraries."""

ORDER = ("int8", "portable", "fp32")
"""The page gets the first ONNX file that the bundle has; bundle.js has the same order."""

MAX_BYTES = 25 << 20
"""Most bytes of the folder: some hosts of static pages accept no more."""


@dataclass(frozen=True)
class WebPage:
    """A written page.

    Attributes:
        bytes: Size of all files.
        has_test_texts: Whether golden.json holds texts of the test split, which the page publishes.
    """

    folder: Path
    bytes: int
    has_test_texts: bool


def write_web_page(bundle: Path, libraries: Path | None = None) -> WebPage:
    """Write the folder `web` next to a bundle; an older one of it is replaced.

    Args:
        bundle: Folder of the bundle, which is verified.
        libraries: A folder node_modules with the JavaScript libraries. Default: npm installs them.

    Raises:
        CheckFailed: If the page would have more than `MAX_BYTES`.
        UsageError: If the folder `web` holds something else or the page of another bundle, or the
            bundle cleans texts.
        MachineError: If npm cannot install the libraries.
        IntegrityError: If a file of the bundle is not the one that was exported.
    """
    opened = Bundle.open(bundle)
    opened.verify_files()
    require_no_cleaning(opened.manifest, "a web page")
    _check_files(opened)
    folder = Path(os.path.abspath(opened.folder)).parent / "web"
    check_target("web page", folder, f"bundle/{MANIFEST}", opened.manifest)
    modules = web_libraries(libraries)
    part = folder.with_name("web.part")
    remove(part)
    part.mkdir()
    try:
        for name in PAGE_FILES:
            shutil.copyfile(TEMPLATES / name, part / name)
        _copy_bundle(opened, part / "bundle")
        copy_libraries(modules, part / "vendor")
        size = _check_size(part)
        replace_dir(part, folder)
    finally:
        remove(part)
    return WebPage(folder, size, opened.json("golden.json").get("texts") == "test")


def _check_files(bundle: Bundle) -> None:
    """Raise UsageError if the bundle only has a file for GPUs."""
    precisions = bundle.manifest.precisions
    if not set(ORDER) & set(precisions):
        raise UsageError(
            "this bundle has no file for a web page",
            f"only {', '.join(precisions)}",
            "export it with --precision int8",
        )


def _copy_bundle(bundle: Bundle, folder: Path) -> None:
    """Copy the files of a bundle that the page loads."""
    precisions = bundle.manifest.precisions
    graph = next(precisions[name] for name in ORDER if name in precisions)
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "golden.json", graph):
        (folder / name).write_bytes(bundle.contents[name])
    shutil.copyfile(bundle.folder / MANIFEST, folder / MANIFEST)


def _check_size(folder: Path) -> int:
    """Return the bytes of all files. Raises CheckFailed if they are more than `MAX_BYTES`."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total <= MAX_BYTES:
        return total
    largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
    lines = [f"{total / 1e6:.1f} MB, {MAX_BYTES / 1e6:.1f} MB are allowed"]
    for path in largest:
        lines.append(f"{path.relative_to(folder)}: {sizes[path] / 1e6:.1f} MB")
    raise CheckFailed(
        "the web page is too large for free hosts of static pages",
        "\n".join(lines),
        "pack the int8 file (--precision int8), or a smaller vocabulary (--trim-vocab 8000)",
    )
