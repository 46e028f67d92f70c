"""Export reads every weight that leaves a run, and compares it with the run's own results."""

from __future__ import annotations

import json
import os
from pathlib import Path

import factories
import numpy as np
import pytest
from kdedge.benchmarks.collect import collect_subjects
from kdedge.benchmarks.options import Options
from kdedge.export.export import export_run
from kdedge.export.options import ExportOptions
from safetensors.numpy import load_file, save_file

from kdedge.errors import IntegrityError, UsageError
from kdedge.nn.text_model import read_measured
from kdedge.run.layout import RunDir
from kdedge.run.stage import STAGE_FILE

TASK = factories.single_task()
FP32 = ExportOptions(precisions=("fp32",))
WEIGHTS = "model.safetensors"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return factories.make_run(tmp_path, TASK)


def export(run: RunDir) -> None:
    export_run(run, list(run.students), options=FP32, task=TASK)


def flip_byte(path: Path) -> None:
    """Flip a bit of a file; its size and time stay."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def shift_embeddings(folder: Path) -> None:
    """Move each row of the embedding to the next token, and record the new weights."""
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if "embedding" in name and weights[name].ndim == 2)
    weights[name] = np.roll(weights[name], 1, axis=0).copy()
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    factories.record_again(folder)


def forge_score(folder: Path, test: float) -> None:
    """Write another test score into stage.json."""
    path = folder / STAGE_FILE
    document = json.loads(path.read_text())
    document["result"]["test"] = test
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("owner", ["teacher", "student"])
def test_a_flipped_bit_that_keeps_size_and_time_is_refused(run: RunDir, owner: str) -> None:
    flip_byte(run.folder / owner / WEIGHTS)
    with pytest.raises(IntegrityError, match=f"{owner}/{WEIGHTS}"):
        export(run)
    assert not run.students["bilstm"].bundle.exists()


def test_a_student_of_another_teacher_is_refused(run: RunDir) -> None:
    """Retention and agreement would be those of a teacher that the student never saw."""
    export(run)
    before = (run.students["bilstm"].bundle / "kdedge.json").read_bytes()
    config = run.teacher / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"changed": True}))
    factories.record_again(run.teacher)
    with pytest.raises(UsageError, match="another teacher than its run has now"):
        export(run)
    assert (run.students["bilstm"].bundle / "kdedge.json").read_bytes() == before
    with pytest.raises(UsageError, match="another teacher than its run has now"):
        list(collect_subjects(run, ["bilstm"], TASK, Options(teacher=False)))


def test_weights_that_contradict_the_stored_logits_are_refused(run: RunDir) -> None:
    shift_embeddings(run.folder / "student")
    with pytest.raises(IntegrityError, match="contradict the results") as caught:
        export(run)
    assert "is stored, and the weights score" in caught.value.detail
    assert not run.students["bilstm"].bundle.exists()


def test_a_stored_score_that_its_logits_do_not_have_is_refused(run: RunDir) -> None:
    folder = run.folder / "student"
    result, _ = read_measured(folder, TASK)
    forge_score(folder, result.test + 0.025)
    with pytest.raises(IntegrityError, match="stored score") as caught:
        read_measured(folder, TASK)
    assert f"{result.test:.4f}" in caught.value.detail
    with pytest.raises(IntegrityError, match="stored score"):
        export(run)


def test_an_unchanged_run_is_exported(run: RunDir) -> None:
    export(run)
    assert run.students["bilstm"].bundle.exists()
