"""A place is a folder, a folder inside an installed package, or nothing local."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kdedge.errors import MachineError, UsageError
from kdedge.io.paths import loadable_name, resolve_model_path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that must never be imported."""
    root = tmp_path / "site" / "some_data"
    (root / "data" / "inner").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "data" / "file.txt").write_text("x")
    (tmp_path / "site" / "secret").mkdir()
    monkeypatch.syspath_prepend(str(root.parent))
    return root


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model_path(str(tmp_path)) == tmp_path
    (tmp_path / "near").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model_path("near") == Path("near")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_model_path("~/near") == tmp_path / "near"


@pytest.mark.parametrize("name", ["nyu-mll/glue", "bert-base-uncased", "", "a\0b"])
def test_what_is_not_here_is_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model_path(name) in (None, Path("."))


def test_a_loadable_name_is_a_folder_or_a_hub_id(tmp_path: Path) -> None:
    assert loadable_name(str(tmp_path)) == str(tmp_path)
    assert loadable_name("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
    for name in (f"{tmp_path}/gone", "./gone", "~/gone", "runs/models/gone"):
        with pytest.raises(UsageError, match=r"(?s)no such folder.*gone.*working directory"):
            loadable_name(name)


def test_a_folder_inside_a_package(package: Path) -> None:
    assert resolve_model_path("package:some_data/data/inner") == package / "data" / "inner"
    assert resolve_model_path("package:some_data") == package
    assert "some_data" not in sys.modules


@pytest.mark.parametrize(
    "inside",
    ["gone", "../secret", "data/../../secret", "/etc", "data/file.txt", "x" * 5000, "a\0b"],
)
def test_only_folders_inside_the_package(package: Path, inside: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)folder inside the package.*some_data"):
        resolve_model_path(f"package:some_data/{inside}")


@pytest.mark.parametrize(
    "name",
    [
        "package:not_installed_at_all/data",
        "package:",
        "package:os.path/x",
        "package:sys",
        "package:../up",
    ],
)
def test_packages_that_are_not_installed(name: str) -> None:
    with pytest.raises(MachineError, match=r"(?s)not installed.*pip install"):
        resolve_model_path(name)


def test_a_link_out_of_the_package_is_refused(package: Path) -> None:
    (package / "out").symlink_to(package.parent / "secret")
    with pytest.raises(UsageError, match="folder inside the package"):
        resolve_model_path("package:some_data/out")
