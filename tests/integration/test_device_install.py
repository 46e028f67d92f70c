"""A second environment as on a device: only `pip install kdedge-toolkit`, without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import factories
import pytest

from kdedge.io.optional import TRAINING_PACKAGES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

WATCHED = """
import sys
from kdedge.cli.main import main
try:
    main()
finally:
    loaded = sorted(set({packages!r}) & set(sys.modules))
    assert not loaded, loaded
"""


def _uv() -> str:
    local = Path(sys.executable).with_name("uv")
    return str(local) if local.exists() else "uv"


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install a copy of this checkout without extras; return the Python of that environment."""
    folder = tmp_path_factory.mktemp("device")
    source = folder / "source"
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(
            ".venv", "runs", ".git", "build", "*.egg-info", "__pycache__", "tests"
        ),
    )
    python = folder / "venv" / "bin" / "python"
    for command in (
        [_uv(), "venv", "--quiet", "--python", sys.executable, str(folder / "venv")],
        [
            _uv(),
            "pip",
            "install",
            "--quiet",
            "--python",
            str(python),
            "-c",
            str(ROOT / "configs" / "locks" / "device.txt"),
            str(source),
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
    return python


def on_device(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [str(python), "-c", WATCHED.format(packages=TRAINING_PACKAGES), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=folder,
        env=environment,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A bundle outside of any run."""
    shutil.copytree(factories.tiny_bundle("bert"), tmp_path / "bundle")
    return tmp_path / "bundle"


def test_no_training_package_is_installed(device: Path) -> None:
    code = "from kdedge.io import optional as o; print(o.missing_training_packages())"
    done = subprocess.run(
        [str(device), "-I", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(list(TRAINING_PACKAGES)), done.stderr


def test_the_wheel_has_one_top_level_name(device: Path) -> None:
    code = """
import importlib.metadata
files = importlib.metadata.files("kdedge-toolkit")
print(sorted({file.parts[0] for file in files if file.suffix == ".py"}))
"""
    assert (
        subprocess.run(
            [str(device), "-I", "-c", code], capture_output=True, text=True, timeout=60
        ).stdout.strip()
        == "['kdedge']"
    )


def test_predictions_equal_those_of_this_environment(
    device: Path, copied: Path, tmp_path: Path
) -> None:
    from kdedge.runtime import Classifier

    done = on_device(
        device, tmp_path, "predict", "bundle", "the film was lovely", "the plot was grim", "--json"
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    here = Classifier.load(copied).predict_batch(["the film was lovely", "the plot was grim"])
    assert [row["label"] for row in rows] == [answer.label for answer in here]
    assert [row["score"] for row in rows] == pytest.approx(
        [answer.score for answer in here], abs=1e-5
    )


def test_verify_passes_and_rejects_a_changed_file(
    device: Path, copied: Path, tmp_path: Path
) -> None:
    done = on_device(device, tmp_path, "verify", "bundle")
    assert done.returncode == 0, done.stderr
    with (copied / "onnx" / "model_quantized.onnx").open("ab") as stream:
        stream.write(b"x")
    done = on_device(device, tmp_path, "verify", "bundle")
    assert done.returncode == 5 and "onnx/model_quantized.onnx" in done.stderr


def test_bench_measures_only_the_bundle(device: Path, copied: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text(
        "text,label\n"
        + "".join(
            f"the film was {word},{label}\n"
            for word, label in (("lovely", "good"), ("grim", "bad")) * 20
        )
    )
    done = on_device(
        device, tmp_path, "bench", "bundle", "--data", "texts.csv", "--seconds", "1", "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert {row["precision"] for row in document["rows"]} == {"fp32", "int8"}
    assert all(
        row["p50_us"] > 0 and row["provider"] == "CPUExecutionProvider"
        for row in document["rows"]
        if row["precision"]
    )


def test_distill_names_the_missing_extra(device: Path, tmp_path: Path) -> None:
    done = on_device(device, tmp_path, "distill", "recipe.toml")
    assert done.returncode == 4 and 'pip install "kdedge-toolkit[train]"' in done.stderr
