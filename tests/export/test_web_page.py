"""The folder of a web page: its files, its largest size, and where its libraries come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import factories
import pytest
from click.testing import CliRunner
from kdedge.export import web_libraries, web_page
from kdedge.export.web_libraries import LOCK_FILES, TEMPLATES, TOKENIZERS_LICENSE, VENDORED
from kit_tools import other_bundle

from kdedge.cli.export import export
from kdedge.errors import CheckFailed, IntegrityError, MachineError, UsageError

VERSIONS = json.loads((TEMPLATES / "package.json").read_text())["dependencies"]


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """Make a node_modules whose libraries are stand-ins of the right names and versions."""
    folder = tmp_path / "node_modules"
    for name in (*VENDORED.values(), TOKENIZERS_LICENSE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    for name, version in VERSIONS.items():
        (folder / name / "package.json").write_text(json.dumps({"version": version}))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return factories.copy_bundle(factories.tiny_bundle(), tmp_path / "student")


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_the_page_the_bundle_and_the_libraries(
    bundle: Path, modules: Path
) -> None:
    page = web_page.write_web_page(bundle, modules)
    assert page.folder == bundle.parent / "web"
    expected = {f"vendor/{name}" for name in VENDORED} | {"vendor/LICENSES.txt"}
    for name in ("kdedge.json", "tokenizer.json", "golden.json", "onnx/model_quantized.onnx"):
        expected.add(f"bundle/{name}")
        assert (page.folder / "bundle" / name).read_bytes() == (bundle / name).read_bytes()
    assert files_of(page.folder) == expected | set(web_page.PAGE_FILES)
    assert page.bytes == sum(path.stat().st_size for path in page.folder.rglob("*.*"))
    licences = (page.folder / "vendor" / "LICENSES.txt").read_text()
    assert f"content of {TOKENIZERS_LICENSE}" in licences
    assert "Copyright (c) Microsoft Corporation" in licences
    assert not page.has_test_texts


def test_every_template_is_copied_or_installs_the_libraries() -> None:
    assert files_of(TEMPLATES) == set(web_page.PAGE_FILES) | set(LOCK_FILES)


def test_an_older_page_is_replaced_and_another_folder_is_not(bundle: Path, modules: Path) -> None:
    page = web_page.write_web_page(bundle, modules)
    (page.folder / "left-over.js").write_text("")
    web_page.write_web_page(bundle, modules)
    assert not (page.folder / "left-over.js").exists()
    shutil.rmtree(page.folder)
    page.folder.mkdir()
    (page.folder / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="did not write"):
        web_page.write_web_page(bundle, modules)
    assert files_of(page.folder) == {"mine.txt"}


@pytest.mark.parametrize("change", ["name", "labels"])
def test_a_page_does_not_replace_that_of_another_bundle(
    bundle: Path, modules: Path, change: str
) -> None:
    other = other_bundle(bundle, change)
    page = web_page.write_web_page(bundle, modules)
    before = (page.folder / "bundle" / "kdedge.json").read_bytes()
    with pytest.raises(UsageError, match="of another bundle") as caught:
        web_page.write_web_page(other, modules)
    assert str(page.folder) in caught.value.detail and "folder of its own" in caught.value.hint
    assert (page.folder / "bundle" / "kdedge.json").read_bytes() == before


def test_a_page_over_the_limit_is_refused_and_leaves_nothing(
    bundle: Path, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = web_page.write_web_page(bundle, modules).bytes
    shutil.rmtree(bundle.parent / "web")
    monkeypatch.setattr(web_page, "MAX_BYTES", size)
    shutil.rmtree(web_page.write_web_page(bundle, modules).folder)
    monkeypatch.setattr(web_page, "MAX_BYTES", size - 1)
    with pytest.raises(CheckFailed, match="--trim-vocab") as caught:
        web_page.write_web_page(bundle, modules)
    assert "onnx/model_quantized.onnx" in caught.value.detail
    assert {path.name for path in bundle.parent.iterdir()} == {"bundle"}


def test_a_damaged_bundle_is_refused(bundle: Path, modules: Path) -> None:
    graph = bundle / "onnx" / "model_quantized.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError, match="model_quantized"):
        web_page.write_web_page(bundle, modules)
    assert not (bundle.parent / "web").exists()


# The libraries


def test_other_versions_of_the_libraries_are_refused(bundle: Path, modules: Path) -> None:
    package = modules / "onnxruntime-web" / "package.json"
    package.write_text('{"version": "1.2.3"}')
    with pytest.raises(UsageError, match=r"onnxruntime-web 1\.2\.3"):
        web_page.write_web_page(bundle, modules)
    package.unlink()
    with pytest.raises(UsageError, match="no onnxruntime-web"):
        web_page.write_web_page(bundle, modules)


def test_without_npm_the_error_names_the_offline_way(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="--web-libraries"):
        web_page.write_web_page(bundle)


def test_npm_runs_once_without_scripts_and_its_failure_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    npm = tmp_path / "npm"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    npm.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho "npm error ENOTFOUND" >&2\nexit 1\n')
    npm.chmod(0o755)
    with pytest.raises(MachineError, match="ENOTFOUND"):
        web_libraries.install_packages(TEMPLATES, "web")
    assert list((tmp_path / "cache" / "kdedge").iterdir()) == []
    npm.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nls > files\nmkdir node_modules\n')
    first = web_libraries.install_packages(TEMPLATES, "web")
    assert web_libraries.install_packages(TEMPLATES, "web") == first
    assert first.is_dir()
    assert "package-lock.json" in (first.parent / "files").read_text()
    lines = calls.read_text().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ci --ignore-scripts") for line in lines)


def test_the_lock_has_hashes_and_names_no_host() -> None:
    for folder in (TEMPLATES, Path(__file__).parents[1] / "web"):
        text = (folder / "package-lock.json").read_text()
        packages = json.loads(text)["packages"]
        assert "resolved" not in text
        for name, package in packages.items():
            assert name == "" or package["integrity"].startswith("sha512-")


# The command


def test_export_writes_the_page_of_a_bundle(bundle: Path, modules: Path) -> None:
    arguments = [str(bundle), "--web-libraries", str(modules), "--json"]
    done = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (document,) = json.loads(done.stdout.splitlines()[-1])["bundles"]
    assert document["web"] == str(bundle.parent / "web")
    assert (bundle.parent / "web" / "index.html").is_file()
    assert f"{document['web_bytes'] / 1e6:.1f} MB" in done.output
    assert "python -m http.server" in done.output


def test_export_of_a_bundle_needs_an_option(bundle: Path) -> None:
    with pytest.raises(UsageError, match="--web"):
        CliRunner().invoke(export, [str(bundle)], catch_exceptions=False)
