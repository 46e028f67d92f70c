"""150 labels from recipe to bundle: names from a file, all scores in JSON, short tables."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from kdedge.export import export
from kdedge.export.options import ExportOptions
from sklearn.metrics import f1_score

from kdedge.cli.augment import describe_logits
from kdedge.cli.distill import show
from kdedge.cli.export import export_and_show
from kdedge.cli.predict import predict
from kdedge.data import load_task
from kdedge.distillation.pipeline import distill
from kdedge.errors import UsageError
from kdedge.recipe import Recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import StageContext, read_stage
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.metrics import macro_f1
from kdedge.runtime.spec import TaskSpec
from kdedge.teacher.finetune import load_teacher

pytestmark = pytest.mark.slow

INTENTS = 150


def few_of_each(path: Path, count: int) -> pa.Table:
    table = pq.read_table(path)
    labels = np.array(table.column("label").to_pylist())
    return table.take(
        np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(INTENTS)])
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> RunDir:
    """Distill both students from an untrained teacher of 150 intents, on three texts per intent."""
    folder = tmp_path_factory.mktemp("intents")
    (folder / "data").mkdir()
    source = shared / "data" / "clinc150"
    pq.write_table(few_of_each(source / "train.parquet", 3), folder / "data" / "train.parquet")
    pq.write_table(few_of_each(source / "validation.parquet", 1), folder / "data" / "test.parquet")
    (folder / "data" / "labels.json").write_bytes((source / "labels.json").read_bytes())
    torch.manual_seed(0)
    factories.bert(outputs=INTENTS, vocabulary=len(factories.tokenizer())).save_pretrained(
        folder / "model"
    )
    factories.tokenizer().save_pretrained(folder / "model")
    lstm = {
        "kind": "bilstm",
        "hidden": 8,
        "head": 8,
        "max_length": 32,
        "baseline": False,
        "fit": {"epochs": 1.0, "checks": 1},
        "quantize": {"steps": 0},
    }
    document = {
        "name": "r",
        "threads": 1,
        "task": {"metric": "macro_f1"},
        "data": {
            "source": str(folder / "data"),
            "validation": 0.34,
            "test": "test",
            "overlap": "allow",
        },
        "teacher": {"model": str(folder / "model"), "max_length": 32},
        "student": [factories.tinybert_config(quantize={"steps": 0}), lstm],
    }
    return distill(Recipe.model_validate(document), folder / "runs")


def test_bundles_predict_150_names(
    made: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shared: Path
) -> None:
    monkeypatch.setattr(export, "_export_teacher", lambda *_, **__: None)
    names = list(json.loads((shared / "data" / "clinc150" / "labels.json").read_text()))
    task = load_task(made.recipe.data, made.recipe.task, name="r", seed=0)
    assert list(task.spec.labels) == names and len(names) == INTENTS
    assert all(
        len(np.unique(split.labels)) == INTENTS
        for split in (task.train, task.validation, task.test)
    ), "the validation share is drawn from every class"
    options = ExportOptions(("fp32", "int8"))
    bundles = export_and_show(made.folder, options=options, stages=StageContext())
    show(made)
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 60 and names[75] not in said, (
        "tables have rows for models, not labels"
    )
    for folder, name in zip(bundles, made.students, strict=True):
        bundle = Bundle.open(folder)
        assert (
            set(bundle.manifest.precisions) >= {"fp32"}
            and bundle.json("config.json")["id2label"]["149"] == names[149]
        )
        card = (folder / "README.md").read_text()
        assert "and 130 more" in card and len(card) < 8000
        stored = np.load(made.students[name].student / "test_logits.npy")
        assert np.abs(Classifier.load(folder, "fp32").logits(task.test.texts) - stored).max() < 1e-4
        score = f1_score(
            task.test.labels,
            stored.argmax(1),
            average="macro",
            labels=np.union1d(task.test.labels, stored.argmax(1)),
            zero_division=0,
        )
        assert (
            macro_f1(stored.argmax(1), task.test.labels)
            == pytest.approx(score)
            == read_stage(made.students[name].student).result["test"]
        )
        for precision in bundle.manifest.precisions:
            (answer,) = predicted(folder, precision, "--json")
            assert list(json.loads(answer)["scores"]) == names and sum(
                json.loads(answer)["scores"].values()
            ) == pytest.approx(1)
            (line,) = predicted(folder, precision)
            assert len(line) < 150 and line.split()[0] == json.loads(answer)["label"]
    int8 = [Bundle.open(folder).manifest for folder in bundles]
    assert all("int8" in manifest.parity for manifest in int8), (
        "the head with 150 outputs passes the integer checks"
    )


def predicted(folder: Path, precision: str, *flags: str) -> list[str]:
    done = CliRunner().invoke(
        predict,
        [str(folder), "how do i say hello in spanish", "--precision", precision, *flags],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_an_error_about_one_of_many_labels_is_short(tmp_path: Path) -> None:
    names = tuple(f"intent number {i}" for i in range(INTENTS))
    model = factories.bert(outputs=INTENTS, vocabulary=len(factories.tokenizer()))
    model.config.id2label = dict(enumerate([*names[:140], *names[:139:-1]]))
    model.save_pretrained(tmp_path)
    factories.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_teacher(tmp_path, TaskSpec("t", "classification", names, "accuracy", pair=False), 32)
    assert (
        "output 140 is intent number 149, label 140 of the task is intent number 140"
        in str(caught.value)
        and len(str(caught.value)) < 600
    )


def test_logits_are_described_by_label_names() -> None:
    spec = TaskSpec("t", "multilabel", ("a", "b", "c"), "micro_f1", pair=False)
    assert [
        describe_logits(spec, np.array(row)) for row in ([1.0, -1.0, 2.0], [-1.0, -1.0, -1.0])
    ] == [
        "a, c",
        "none",
    ]
    assert (
        describe_logits(
            TaskSpec("t", "regression", ("score",), "pearson", pair=False), np.array([1.234])
        )
        == "1.23"
    )
