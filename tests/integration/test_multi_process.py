"""One recipe in two processes (`accelerate launch`, `torchrun`): one of them writes and prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import factories
import pytest
from kdedge_process import ROOT
from test_run import write_inputs

from kdedge.run.stage import read_stage
from kdedge.runtime import metrics
from kdedge.transfer.dataset import read_transfer_set

pytestmark = pytest.mark.slow

SLOW_READER = """
import sys, time
from pathlib import Path
from kdedge.run.processes import is_main, on_main_process
from kdedge.run.stage import stage

def make(part):
    on_main_process(lambda: (part / "made").write_text("here"))
    if not is_main():
        time.sleep(2)
    return {"read": (part / "made").read_text()}

print(stage(Path(sys.argv[1]), {}, make))
"""


def test_a_stage_is_not_renamed_while_another_process_reads_it(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_READER)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(tmp_path / "slow.py"),
        str(tmp_path / "stage"),
    ]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("'read': 'here'") == 2
    assert read_stage(tmp_path / "stage").result == {"read": "here"}


def test_two_processes_train_one_run(tmp_path: Path) -> None:
    recipe = write_inputs(tmp_path, "classification", pair=True)
    # `accelerate launch` starts this for several devices; for CPUs it would require MPI.
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "kdedge",
    ]
    command += ["distill", str(recipe), "--threads", "1", "--json"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=500,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    documents = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(documents) == 1, "only one process prints"
    run = tmp_path / "runs" / "r"
    assert len(json.loads(documents[0])["rows"]) == 5
    # 128 training texts in batches of 16 over two processes: 4 steps an epoch, 2 epochs.
    steps = [
        json.loads(line)["step"]
        for line in (run / "teacher" / "log.jsonl").read_text().splitlines()
    ]
    assert max(steps) == 8
    assert not list(run.glob("**/*.part")) and not list(run.glob("**/checkpoint-*"))
    transfer = read_transfer_set(run / "transfer")
    assert transfer.logits.shape == (128, 2)
    score = metrics.score(
        factories.pair_task().spec, transfer.logits.astype("float32"), transfer.texts.labels
    )
    assert score >= 0.5 and read_stage(run / "tinybert" / "student").result["test"] > 0
