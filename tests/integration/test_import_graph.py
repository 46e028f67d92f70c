"""Packages import only from floors below their own; no class name is used twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FLOORS = (
    ("api",),
    ("cli",),
    ("serve",),
    ("cascade",),
    ("export", "benchmarks"),
    ("tuning",),
    ("distillation",),
    ("augment",),
    ("transfer",),
    ("teacher", "students"),
    ("evaluation",),
    ("nn",),
    ("data",),
    ("run",),
    ("recipe",),
    ("runtime",),
    ("io",),
    ("errors",),
    ("printable", "wording"),
)
"""From the top down. A package may import from its own floor's package and from lower floors."""

LEVEL = {package: level for level, floor in enumerate(FLOORS) for package in floor}


def product_files() -> list[Path]:
    return [path for path in python_files() if "studies" not in path.parts]


def python_files() -> list[Path]:
    files: list[Path] = []
    for root in ("kdedge", "export", "benchmarks"):
        files += (ROOT / root).rglob("*.py")
    return sorted(files)


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "kdedge" else parts[0]


def imported_packages(tree: ast.Module) -> Iterator[str]:
    """Yield the packages of kdedge that a module imports, such as `nn` for `kdedge.nn.losses`."""
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            modules = [node.module or ""]
            if node.module == "kdedge":
                modules = [_module_of(alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            if module.startswith("kdedge."):
                yield module.split(".")[1]


def _module_of(name: str) -> str:
    """Return the module that `from kdedge import name` imports."""
    if name == "__version__":
        return "kdedge"
    return f"kdedge.{name}" if name in LEVEL else "kdedge.api"


def test_every_form_of_import_is_seen() -> None:
    code = "import kdedge.nn\nfrom kdedge import run, distill\nfrom kdedge.cli.main import cli"
    assert set(imported_packages(ast.parse(code))) == {"nn", "run", "api", "cli"}
    assert not set(imported_packages(ast.parse("from kdedge import __version__")))
    with pytest.raises(AssertionError, match="line 1: a relative import"):
        list(imported_packages(ast.parse("from . import losses")))


@pytest.mark.parametrize("path", product_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_up(path: Path) -> None:
    package = package_of(path)
    if package in ("__init__", "__main__"):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for imported in imported_packages(tree):
        same = imported == package
        assert same or LEVEL[imported] > LEVEL[package], f"{package} imports {imported}"


def test_no_class_name_is_used_twice() -> None:
    places = defaultdict(list)
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 100
    assert not {name: files for name, files in places.items() if len(files) > 1}


def test_few_modules_stand_outside_of_packages() -> None:
    assert len(list((ROOT / "kdedge").glob("*.py"))) <= 8
