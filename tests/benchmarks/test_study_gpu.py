"""The GPU study runs through on a CPU, and a step that fails does not stop the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
    assert len(steps) == 8 and not any("error" in step for step in steps.values())
    checks = steps["checks"]["result"]
    assert isinstance(checks, dict)
    assert checks["largest difference of a logit, fp32"] == 0
    assert 0 < checks["largest difference of a BiLSTM's logit without packing"] < 1e-5


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
gpu.study()
"""
    )
    steps = run(program, tmp_path / "results.json")
    assert steps["dies"] == {"error": "the process ended with status 9"}
    assert "CUDA error" in str(steps["fails"]["error"])
    assert steps["last"]["result"] == {"done": True}
