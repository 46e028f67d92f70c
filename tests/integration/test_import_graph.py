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
)
"""From the top down. A package may import from its own floor's package and from lower floors."""

LEVEL = {package: level for level, floor in enumerate(FLOORS) for package in floor}


def product_files() -> list[Path]:
    files = []
    for root in ("kdedge", "export", "benchmarks"):
        files += [path for path in (ROOT / root).rglob("*.py") if "studies" not in path.parts]
    return sorted(files)


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "kdedge" else parts[0]


def imported_packages(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            if module.startswith("kdedge."):
                yield module.split(".")[1]


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
    for path in product_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert not {name: files for name, files in places.items() if len(files) > 1}


def test_few_modules_stand_outside_of_packages() -> None:
    assert len(list((ROOT / "kdedge").glob("*.py"))) <= 8
