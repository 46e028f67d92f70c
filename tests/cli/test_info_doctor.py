"""`kdedge info` describes a bundle, `kdedge doctor` this machine."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import pytest
from forgery import edit_manifest
from kdedge_process import call_kdedge, run_kdedge

from kdedge.runtime import Bundle
from kdedge.runtime.layout import MANIFEST
from kdedge.runtime.manifest import Manifest, write_manifest


def test_info_names_task_labels_files_and_digest() -> None:
    bundle = factories.tiny_bundle()
    done = call_kdedge("info", str(bundle), COLUMNS="80")
    assert done.returncode == 0, done.stderr
    digest = Bundle.open(bundle).manifest.digest()
    for word in ("2: bad, good", "onnx/model.onnx", "fp32", "0.9375", digest):
        assert word in done.stdout, done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout


def test_info_breaks_long_facts_between_words(tmp_path: Path) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle(), tmp_path)
    labels = [f"a-rather-long-label-{number}" for number in range(12)]
    (folder / "config.json").write_text("{}")
    document = json.loads((folder / MANIFEST).read_text())
    document["spec"]["labels"] = labels
    document["teacher"]["model"] = "of the hub: " + "m" * 66
    document["scheme"] = {f"part-{number}": "per_channel" for number in range(6)}
    write_manifest(folder, Manifest.from_json(document))
    done = call_kdedge("info", str(folder), COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout
    words = done.stdout.replace(",", " ").split()
    assert {*labels, "m" * 66, "part-5"} <= set(words), "no word is cut"


def test_info_has_the_score_of_each_file(tmp_path: Path) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle(), tmp_path)
    document = json.loads((folder / MANIFEST).read_text())
    precision = next(iter(document["precisions"]))
    document["scores"] |= {"student": 0.9, precision: 0.875}
    write_manifest(folder, Manifest.from_json(document))
    done = call_kdedge("info", str(folder), COLUMNS="120")
    assert f"0.9000, {precision} file 0.8750" in done.stdout


def test_info_as_json_has_the_size_of_every_file() -> None:
    bundle = factories.tiny_bundle()
    document = json.loads(call_kdedge("info", str(bundle), "--json").stdout)
    for name, entry in document["files"].items():
        assert entry["bytes"] == (bundle / name).stat().st_size
    assert document["spec"]["labels"] == ["bad", "good"]


def test_info_rejects_a_changed_bundle(tmp_path: Path) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle(), tmp_path)
    (folder / "config.json").write_text("{}")
    done = call_kdedge("info", str(folder))
    assert done.returncode == 5 and "Traceback" not in done.stderr


def test_info_rejects_a_forged_score(tmp_path: Path) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle(), tmp_path)
    edit_manifest(folder, lambda document: document["scores"].update(teacher="high"))
    done = call_kdedge("info", str(folder))
    assert done.returncode == 5 and "scores is" in done.stderr, done.stderr


@pytest.mark.slow
def test_doctor_lists_versions_and_providers() -> None:
    import onnxruntime

    document = json.loads(run_kdedge("doctor", "--json").stdout)
    assert document["onnxruntime"] == onnxruntime.__version__
    assert "CPUExecutionProvider" in document["providers"]
    assert {"cpu", "all"} <= set(document["--provider"])
    assert not set(document["--provider"]) & set(document["not offered"])
    assert document["missing"] == {"train": [], "tune": []}


@pytest.mark.parametrize("package, extra", [("optuna", "tune"), ("datasets", "train")])
def test_doctor_names_the_pip_line_of_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str, extra: str
) -> None:
    from kdedge.cli import doctor
    from kdedge.io import optional

    found = optional.find_spec
    monkeypatch.setattr(
        optional, "find_spec", lambda name: None if name == package else found(name)
    )
    doctor.doctor.main([], standalone_mode=False)
    output = capsys.readouterr().out
    assert f"missing: {package}" in output and f'pip install "kdedge-toolkit[{extra}]"' in output


def test_doctor_names_the_cache_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kdedge.cli import doctor

    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor._model_cache() == tmp_path / "huggingface" / "hub"
