"""The GPU study runs through on a CPU, and a step that fails does not stop the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import factories
import pytest

STUDIES = Path(__file__).resolve().parents[2] / "benchmarks" / "studies"

pytestmark = pytest.mark.slow


def run(program: Path, out: Path) -> dict[str, dict[str, object]]:
    command = [sys.executable, str(program), "--tiny", "--device", "cpu", "--out", str(out)]
    subprocess.run(command, check=True, timeout=400, capture_output=True)
    steps: dict[str, dict[str, object]] = json.loads(out.read_text())["steps"]
    return steps


def test_every_step_runs_on_a_cpu(tmp_path: Path) -> None:
    steps = run(STUDIES / "gpu.py", tmp_path / "results.json")
    assert len(steps) == 9 and not any("error" in step for step in steps.values()), steps
    checks, labelling = steps["checks"]["result"], steps["labelling"]["result"]
    assert isinstance(checks, dict) and isinstance(labelling, dict)
    assert checks["largest difference of a logit, fp32"] == 0
    assert 0 < checks["largest difference of a BiLSTM's logit without packing"] < 1e-5
    assert 0 < labelling["share of tokenization if both took turns"] < 1
    assert "passed" in str(steps["device tests"]["output"])


@pytest.mark.soak
def test_a_recipe_is_taken_to_verified_and_timed_bundles(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    fit = {"epochs": 1.0, "checks": 1}
    quantize = {"steps": 0}
    students = [
        factories.tinybert_config(fit=fit, quantize=quantize),
        {"kind": "bilstm", "max_length": 32, "fit": fit, "baseline": False, "quantize": quantize},
    ]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(factories.make_recipe(document, name="gpu", student=students).to_toml())
    program = tmp_path / "recipe.py"
    program.write_text(
        f"""
import argparse, json, sys, time
sys.path.insert(0, {str(STUDIES)!r})
import gpu
from pathlib import Path

steps = {{}}
arguments = argparse.Namespace(device="cpu", tiny=True, runs=Path({str(tmp_path / "runs")!r}))
gpu.run_recipe(Path({str(recipe)!r}), arguments, time.monotonic() + 500, steps.__setitem__)
print(json.dumps(steps))
"""
    )
    command = [sys.executable, str(program)]
    done = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
    steps = json.loads(done.stdout)
    verified = ["verify gpu/bilstm/bundle", "verify gpu/tinybert/bundle"]
    assert list(steps) == ["distill", "export", *verified, "bench"]
    assert not any("error" in step for step in steps.values()), steps


def test_a_failed_or_killed_step_leaves_the_others(tmp_path: Path) -> None:
    program = tmp_path / "gpu.py"
    program.write_text(
        f"""
import os, sys
sys.path.insert(0, {str(STUDIES)!r})
import gpu
from kdedge.benchmarks.studies import _gpu_steps

def dies(sizes):
    os._exit(9)

def fails(sizes):
    raise RuntimeError("CUDA error")

names = list(_gpu_steps.STEPS)
for name in names[2:]:
    del _gpu_steps.STEPS[name]
_gpu_steps.STEPS["dies"], _gpu_steps.STEPS["fails"] = dies, fails
_gpu_steps.STEPS["last"] = lambda sizes: {{"done": True}}
gpu.STEP_NAMES = tuple(_gpu_steps.STEPS)
gpu.__file__ = __file__
gpu.DEVICE_TESTS = gpu.REPOSITORY / "nothing.py"
gpu.study()
"""
    )
    steps = run(program, tmp_path / "results.json")
    assert steps["dies"] == {"error": "the process ended with status 9"}
    assert "CUDA error" in str(steps["fails"]["error"])
    assert steps["last"]["result"] == {"done": True}
    assert "nothing.py" in str(steps["device tests"]["error"])
