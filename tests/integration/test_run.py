"""`kdedge run` on small real models: recipe to report, for texts and pairs, for all tasks."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import factories
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from kdedge.export.graph import to_onnx
from kdedge_process import run_kdedge

from kdedge.cli import bench_measure
from kdedge.distillation.pipeline import distill
from kdedge.distillation.scores import scores
from kdedge.recipe import load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.progress import SILENT
from kdedge.run.stage import read_stage
from kdedge.runtime import Classifier
from kdedge.students.build import load_student
from kdedge.transfer.dataset import read_transfer_set

pytestmark = pytest.mark.slow

RECIPE = """
name = "r"
[task]
kind = "{kind}"
[data]
source = "{folder}"
{pair}
validation = 0.2
test = "test"
[teacher]
model = "{teacher}"
max_length = 48
[teacher.fit]
epochs = 2
learning_rate = 1e-3
batch_size = 16
checks = 2
[transfer]
precision = "fp32"
[[student]]
kind = "tinybert"
layers = 1
hidden = 24
heads = 2
intermediate = 48
max_length = 48
[student.fit]
epochs = 2
learning_rate = 1e-3
[student.quantize]
steps = 4
[student.objective]
hidden_weight = 0.1
attention_weight = 0.1
embedding_weight = 0.1
[[student]]
kind = "bilstm"
hidden = 8
head = 8
max_length = 48
[student.fit]
epochs = 2
[student.quantize]
steps = 4
"""


def rows(count: int, seed: int, kind: str, pair: bool) -> dict[str, list]:
    """Make texts whose label follows from the text, so that a shuffled row is noticed."""
    texts, left = factories.sentences(count, seed)
    if kind == "multilabel":
        names = [
            ["good"] * bool(good) + ["long"] * (len(text) > 40)
            for text, good in zip(texts, left, strict=True)
        ]
        return {"text": list(texts), "label": names}
    assert pair
    seconds, right = factories.sentences(count, seed + 50)
    same = left == right
    return {
        "text": list(texts),
        "second": list(seconds),
        "label": (5.0 * same).tolist() if kind == "regression" else same.astype(int).tolist(),
    }


def write_inputs(folder: Path, kind: str, pair: bool) -> Path:
    """Write an encoder, data and a recipe that names both; return the path of the recipe."""
    torch.manual_seed(0)
    tokenizer = factories.tokenizer()
    factories.bert(layers=2, vocabulary=len(tokenizer), initializer_range=0.2).bert.save_pretrained(
        folder / "encoder"
    )
    tokenizer.save_pretrained(folder / "encoder")
    (folder / "data").mkdir()
    for split, count, seed in (("train", 160, 1), ("test", 64, 2)):
        pq.write_table(
            pa.table(rows(count, seed, kind, pair)), folder / "data" / f"{split}.parquet"
        )
    recipe = folder / "recipe.toml"
    recipe.write_text(
        RECIPE.format(
            kind=kind,
            folder=folder / "data",
            teacher=folder / "encoder",
            pair='pair = "second"' if pair else "",
        )
    )
    return recipe


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("multilabel", False), id="multilabel"),
        pytest.param(("classification", True), id="pair", marks=pytest.mark.soak),
        pytest.param(("regression", True), id="pair-regression"),
    ],
)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Run `kdedge run` in a process; return the run folder and its stdout."""
    kind, pair = request.param
    folder = tmp_path_factory.mktemp("line")
    recipe = write_inputs(folder, kind, pair)
    done = run_kdedge("run", str(recipe), "--threads", "1", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "r", done.stdout


def test_every_stage_is_where_the_readme_says(made: tuple[Path, str]) -> None:
    run, _ = made
    for name in (
        "recipe.toml",
        "run.json",
        "teacher/stage.json",
        "transfer/stage.json",
        "teacher-bundle/kdedge.json",
        "bench/report.html",
        "bench/report.json",
        "bench/report.md",
    ):
        assert (run / name).is_file(), name
    for student in ("tinybert", "bilstm"):
        for name in (
            "student/model.safetensors",
            "student/log.jsonl",
            "baseline/stage.json",
            "bundle/onnx/model_quantized.onnx",
        ):
            assert (run / student / name).is_file(), f"{student}/{name}"
        assert list((run / student / "student" / "tensorboard").iterdir())
    assert not list(run.rglob("*.part")) and not list(run.rglob("checkpoint-*"))


def test_the_report_has_every_subject_with_all_its_columns(made: tuple[Path, str]) -> None:
    run, out = made
    document = json.loads(out.splitlines()[-1])
    assert document == json.loads((run / "bench" / "report.json").read_text())
    columns = {
        "subject",
        "precision",
        "provider",
        "threads",
        "batch",
        "p50_us",
        "p90_us",
        "p99_us",
        "texts_per_s",
        "metric",
        "value",
    }
    columns |= {"retention", "retention_low", "retention_high", "bytes", "peak_mb"}
    assert all(columns <= set(row) for row in document["rows"])
    for student in ("tinybert", "bilstm"):
        rows = [row for row in document["rows"] if row["subject"] == student]
        assert [row["precision"] for row in rows] == ["fp32", "int8"], "torch and the bundle"
    assert "machine" in document and len({row["subject"] for row in document["rows"]}) >= 6


def test_the_file_reads_each_example_with_its_own_second_text(made: tuple[Path, str]) -> None:
    """The logits of the ONNX file equal those that torch stored for the test split."""
    run_folder, _ = made
    run, students = RunDir.open(run_folder)
    table = pq.read_table(Path(run.recipe.data.source) / "test.parquet").to_pydict()
    pairs = table.get("second")
    for student in students:
        folders = run.students[student]
        classifier = Classifier.load(folders.bundle)
        assert classifier.precision == "int8"
        session = onnxruntime.InferenceSession(
            to_onnx(load_student(folders.student)).SerializeToString()
        )
        stored = np.load(folders.student / "test_logits.npy")
        (logits,) = session.run(None, classifier.encode(table["text"], pairs))
        assert np.abs(logits - stored).max() < 1e-4
        if pairs:
            others = classifier.encode(table["text"], pairs[1:] + pairs[:1])
            (shuffled,) = session.run(None, others)
            assert np.abs(shuffled - stored).max() > 1e-3, (
                "another second text must change the logits"
            )


def test_the_transfer_set_keeps_text_pair_label_and_logits_together(made: tuple[Path, str]) -> None:
    run, _ = RunDir.open(made[0])
    source = pq.read_table(Path(run.recipe.data.source) / "train.parquet").to_pydict()
    known = {
        row[:-1]: row[-1]
        for row in zip(
            *(source[name] for name in source if name != "label"), source["label"], strict=True
        )
    }
    made_set = read_transfer_set(run.transfer)
    texts = made_set.texts
    assert len(made_set) == 128, "the rest is the validation split"
    for i, text in enumerate(texts.texts):
        key = (text,) if texts.pairs is None else (text, texts.pairs[i])
        label = known[key]
        if run.recipe.task.kind == "multilabel":
            label = [float(name in label) for name in ("good", "long")]
        assert np.array_equal(label, texts.labels[i])
    teacher = Classifier.load(run.shared / "teacher-bundle", "fp32")
    again = teacher.logits(texts.texts, texts.pairs)
    # fp16 has 11 significant bits: the rounding error is at most 2^-11 of the value.
    assert np.allclose(made_set.logits.astype(np.float32), again, rtol=2**-11 + 1e-5, atol=1e-4)


def test_a_second_run_reuses_every_stage(made: tuple[Path, str]) -> None:
    run, _ = made
    done = run_kdedge(
        "distill", str(run / "recipe.toml"), "--threads", "1", folder=run.parent.parent
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("same inputs, kept") == 6 and "left" not in done.stderr


@pytest.mark.parametrize("made", [("multilabel", False)], ids=["multilabel"], indirect=True)
def test_a_second_run_shows_the_report_that_is_there(
    made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, first = made
    page = (run / "bench" / "report.html").read_bytes()
    done = run_kdedge(
        "run", str(run / "recipe.toml"), "--threads", "1", "--json", folder=run.parent.parent
    )
    assert done.returncode == 0, done.stderr
    assert "bench: same bundles, settings and machine, kept" in done.stderr
    assert "timing single texts" not in done.stderr
    assert done.stdout.splitlines()[-1] == first.splitlines()[-1]
    assert (run / "bench" / "report.html").read_bytes() == page

    class MeasuredAgainError(Exception):
        """A benchmark was started."""

    def measure(*_: object, **__: object) -> None:
        raise MeasuredAgainError

    monkeypatch.setattr(bench_measure, "measure_run", measure)
    with pytest.raises(MeasuredAgainError):
        bench_measure.bench_and_show(run, progress=SILENT, force=True)


def test_the_saved_recipe_equals_the_resolved_one(made: tuple[Path, str]) -> None:
    run, _ = RunDir.open(made[0])
    assert load_recipe(run.folder / "recipe.toml") == run.recipe


def test_the_saved_recipe_gives_the_same_weights_in_another_environment(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    """Thread variables, hash seed, locale and folder have no effect."""
    run, _ = RunDir.open(made[0])
    (tmp_path / "elsewhere").mkdir()
    environment = {
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "PYTHONHASHSEED": "77",
        "LC_ALL": "C",
    }
    done = run_kdedge(
        "distill",
        str(run.folder / "recipe.toml"),
        folder=tmp_path / "elsewhere",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    again, _ = RunDir.open(tmp_path / "elsewhere" / "runs" / "r")
    assert again.recipe == run.recipe
    for name in (
        "teacher",
        "tinybert/student",
        "tinybert/baseline",
        "bilstm/student",
        "bilstm/baseline",
    ):
        first, second = (
            hashlib.sha256((folder / name / "model.safetensors").read_bytes()).hexdigest()
            for folder in (run.folder, again.folder)
        )
        assert first == second, name


def test_parts_of_the_loss_are_logged(made: tuple[Path, str]) -> None:
    lines = [
        json.loads(line)
        for line in (made[0] / "tinybert" / "student" / "log.jsonl").read_text().splitlines()
    ]
    assert {"part/logits", "part/hidden", "part/attention", "part/embedding"} <= set().union(*lines)


def test_retention_is_relative_to_the_measured_teacher(made: tuple[Path, str]) -> None:
    run, _ = RunDir.open(made[0])
    found = {row.model: row for row in scores(run)}
    assert set(found) == {
        "teacher",
        "tinybert",
        "tinybert baseline",
        "bilstm",
        "bilstm baseline",
    }
    top = read_stage(run.teacher).result["test"]
    assert all(
        row.retention is None or row.retention == pytest.approx(row.test / top)
        for row in found.values()
    )


def test_a_fine_tuned_teacher_is_measured_again(tmp_path: Path, made: tuple[Path, str]) -> None:
    first, _ = RunDir.open(made[0])
    shutil.copytree(first.teacher, tmp_path / "teacher")
    recipe = load_recipe(
        first.folder / "recipe.toml",
        (
            "name=again",
            f"teacher.model={tmp_path / 'teacher'}",
            "student.tinybert.baseline=false",
            "student.bilstm.baseline=false",
        ),
    )
    run = distill(recipe, tmp_path / "runs")
    result = read_stage(run.teacher).result
    assert result["fine_tuned"] is False
    assert result["test"] == pytest.approx(read_stage(first.teacher).result["test"])
    assert np.allclose(
        np.load(run.teacher / "test_logits.npy"),
        np.load(first.teacher / "test_logits.npy"),
        atol=1e-5,
    )


def test_a_changed_recipe_stops_and_says_what_changed(made: tuple[Path, str]) -> None:
    run, _ = made
    done = run_kdedge(
        "distill",
        str(run / "recipe.toml"),
        "--set",
        "student.bilstm.fit.epochs=3",
        "--threads",
        "1",
        folder=run.parent.parent,
    )
    assert (
        done.returncode == 2
        and "student.fit.epochs: was 2.0, now 3.0" in done.stderr
        and "--force" in done.stderr
    )
