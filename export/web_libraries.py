"""The JavaScript libraries of the web page: installed once by npm, with exact versions."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import onnxruntime

from kdedge.errors import MachineError, UsageError
from kdedge.io.atomic import remove, replace_dir

TEMPLATES = Path(__file__).with_name("web")
LOCK_FILES = ("package.json", "package-lock.json")
SECONDS = 300

VENDORED = {
    "onnxruntime-web/ort.wasm.min.mjs": "onnxruntime-web/dist/ort.wasm.min.mjs",
    "onnxruntime-web/ort-wasm-simd-threaded.mjs": (
        "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs"
    ),
    "onnxruntime-web/ort-wasm-simd-threaded.wasm": (
        "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"
    ),
    "tokenizers/tokenizers.min.mjs": "@huggingface/tokenizers/dist/tokenizers.min.mjs",
}
"""Path in vendor/ -> path in node_modules."""

TOKENIZERS_LICENSE = "@huggingface/tokenizers/LICENSE"
RUNTIME_LICENSES = ("LICENSE", "ThirdPartyNotices.txt")
"""Files of the Python package onnxruntime: the npm package of the same project has none."""

OFFLINE_HINT = (
    "install Node.js with npm and check the network; or run `npm ci` in a copy of "
    f"{TEMPLATES} elsewhere, bring its node_modules here, and name it with --web-libraries"
)


def web_libraries(given: Path | None = None) -> Path:
    """Return a folder node_modules that holds the libraries in the locked versions.

    Args:
        given: Such a folder, for machines without npm or network. Default: npm installs the
            libraries into kdedge's cache folder, once for each version of the lock file.

    Raises:
        MachineError: If npm is missing or fails.
        UsageError: If `given` lacks a library, or has another version of it.
    """
    modules = given or install_packages(TEMPLATES, "web")
    _check_versions(modules)
    return modules


def copy_libraries(modules: Path, vendor: Path) -> None:
    """Copy the libraries of the page from node_modules, with their licences."""
    for name, source in VENDORED.items():
        target = vendor / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(modules / source, target)
    texts = ["@huggingface/tokenizers\n\n" + (modules / TOKENIZERS_LICENSE).read_text("utf-8")]
    for name in RUNTIME_LICENSES:
        path = Path(onnxruntime.__file__).with_name(name)
        texts.append(f"onnxruntime-web: {name}\n\n" + path.read_text("utf-8", errors="replace"))
    separator = "\n\n" + "-" * 80 + "\n\n"
    (vendor / "LICENSES.txt").write_text(separator.join(texts), encoding="utf-8")


def install_packages(locked: Path, name: str) -> Path:
    """Install the packages of a lock file with npm, unless the cache has them.

    Args:
        locked: Folder with package.json and package-lock.json.
        name: Start of the cache folder's name.
    """
    digest = hashlib.sha256((locked / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = _cache() / f"{name}-{digest}"
    if not (folder / "node_modules").is_dir():
        _install(locked, folder)
    return folder / "node_modules"


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) / "kdedge" if base else Path.home() / ".cache" / "kdedge"


def _install(locked: Path, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MachineError(
            "the web page needs JavaScript libraries, which npm installs",
            "npm is not installed",
            OFFLINE_HINT,
        )
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    remove(part)
    part.mkdir(parents=True)
    for name in LOCK_FILES:
        shutil.copyfile(locked / name, part / name)
    try:
        _run_npm(npm, part)
        replace_dir(part, folder)
    finally:
        remove(part)


def _run_npm(npm: str, folder: Path) -> None:
    # The lock has the hashes of all packages, and none of their scripts is run.
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise _npm_failed(f"npm did not finish within {SECONDS} s") from error
    if done.returncode:
        raise _npm_failed("\n".join(done.stderr.strip().splitlines()[:5]))


def _npm_failed(detail: str) -> MachineError:
    return MachineError(
        "npm could not install the JavaScript libraries of the web page", detail, OFFLINE_HINT
    )


def _check_versions(modules: Path) -> None:
    """Raise UsageError unless node_modules has the libraries in the locked versions."""
    wanted = json.loads((TEMPLATES / "package.json").read_text("utf-8"))["dependencies"]
    for name, version in wanted.items():
        package = modules / name / "package.json"
        found = None
        if package.is_file():
            found = json.loads(package.read_text("utf-8")).get("version")
        if found != version:
            raise UsageError(
                "the folder of --web-libraries does not hold the libraries of the web page",
                f"{modules} has {name} {found}, the page was tested with {version}"
                if found
                else f"{modules} has no {name}",
                f"run `npm ci` in a copy of {TEMPLATES}, and name its node_modules",
            )
