"""`kdedge.distill`: a recipe or objects in memory, repeatable from the command line."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import factories
import numpy as np
import pytest
import tomli_w
import torch
from click.testing import CliRunner
from transformers import BertModel, PreTrainedModel, PreTrainedTokenizerFast

import kdedge
from kdedge.api.inputs import write_inputs
from kdedge.cli.distill import distill as distill_command
from kdedge.errors import DataError, KdedgeError, UsageError
from kdedge.recipe import Recipe, load_recipe
from kdedge.run.stage import read_stage
from kdedge.transfer.dataset import read_transfer_set

TESTS = Path(__file__).parents[1]


class Log:
    """Receives progress and keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def start(self, what: str, total: int, done: int = 0) -> None: ...

    def advance(self, done: int, note: str = "") -> None: ...

    def finish(self) -> None: ...


def teacher() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    torch.manual_seed(0)
    pieces = factories.tokenizer()
    return factories.bert(vocabulary=len(pieces)), pieces


def quick_student(**settings: Any) -> Any:
    fit = {"epochs": 1, "checks": 1}
    return kdedge.BiLstm(hidden=8, baseline=False, fit=fit, quantize={"steps": 0}, **settings)


def inputs(**changes: Any) -> Any:
    """Return arguments of `kdedge.distill` that need a few seconds."""
    model, pieces = teacher()
    texts, labels = factories.sentences(64, 1)
    test_texts, test_labels = factories.sentences(24, 3)
    arguments: dict[str, Any] = {
        "teacher": model,
        "tokenizer": pieces,
        "train": (list(texts), labels.tolist()),
        "test": (list(test_texts), test_labels),
        "student": quick_student(),
        "name": "r",
    }
    return arguments | changes


def rows(seed: int, count: int) -> dict[str, Any]:
    texts, labels = factories.sentences(count, seed)
    return {"text": list(texts), "label": labels.tolist()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> kdedge.Run:
    """The run of `inputs()`; all tests share it. It is not changed."""
    runs = tmp_path_factory.mktemp("shared") / "runs"
    return kdedge.distill(**inputs(), runs=runs, threads=1, progress=False)


@pytest.mark.slow
def test_twelve_lines_lead_from_texts_to_a_prediction(tmp_path: Path) -> None:
    script = TESTS / "api" / "script.py"
    lines = [line for line in script.read_text().splitlines() if line.strip()]
    assert len(lines) <= 16
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("0", "1")
    assert "student bilstm" in done.stderr
    assert (tmp_path / "runs" / "my-run" / "bundle" / "kdedge.json").is_file()


def test_a_run_shows_its_scores(finished: kdedge.Run) -> None:
    teacher_scores, student_scores = finished.scores()
    assert finished.students == ["bilstm"]
    assert student_scores.retention == pytest.approx(student_scores.test / teacher_scores.test)
    assert f"{student_scores.test:.4f}" in repr(finished)
    assert f"<td>{student_scores.test:.4f}</td>" in finished._repr_html_()
    assert finished.to_pandas()["test"].tolist() == [teacher_scores.test, student_scores.test]
    assert kdedge.Run.open(finished.folder).scores() == finished.scores()


def test_an_unfinished_run_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        'name = "x"\n[data]\n[teacher]\nmodel = "m"\n[student]\nkind = "bilstm"\n'
    )
    (tmp_path / "run.json").write_text("{}")
    run = kdedge.Run.open(tmp_path)
    assert "not finished" in repr(run) and "not finished" in run._repr_html_()


@pytest.mark.parametrize("form", ["dataset", "pandas"])
def test_other_forms_of_the_same_data_are_the_same_run(finished: kdedge.Run, form: str) -> None:
    make: Callable[[dict[str, Any]], Any] = datasets.Dataset.from_dict
    if form == "pandas":
        make = pytest.importorskip("pandas").DataFrame
    log = Log()
    again = inputs(train=make(rows(1, 64)), test=make(rows(3, 24)))
    runs = finished.folder.parent
    run = kdedge.distill(**again, runs=runs, threads=1, progress=log)
    kept = [line.partition(":")[0] for line in log.lines if line.endswith("same inputs, kept")]
    assert [name.rpartition("/")[2] for name in kept] == ["teacher", "transfer", "student"]
    assert run.scores() == finished.scores()


def test_the_command_line_repeats_the_run(finished: kdedge.Run) -> None:
    recipe = finished.folder / "inputs" / "recipe.toml"
    result = CliRunner().invoke(
        distill_command, [str(recipe), "--runs", str(finished.folder.parent)]
    )
    assert result.exception is None, result.exception
    assert result.stderr.count("same inputs, kept") == 3


def test_a_used_tokenizer_is_the_same_tokenizer(finished: kdedge.Run) -> None:
    again = inputs()
    pieces = again["tokenizer"]
    pieces(["the film", "the plot was good"], padding=True, truncation=True, max_length=5)
    before = pieces.backend_tokenizer.to_str()
    kdedge.distill(**again, runs=finished.folder.parent, threads=1, progress=False)
    assert pieces.backend_tokenizer.to_str() == before


def test_other_inputs_of_a_made_run_are_refused_and_change_nothing(finished: kdedge.Run) -> None:
    train = finished.folder / "inputs" / "train.jsonl"
    before = train.read_bytes()
    texts, labels = factories.sentences(64, 9)
    with pytest.raises(UsageError, match="other inputs") as error:
        kdedge.distill(
            **inputs(train=(list(texts), labels)), runs=finished.folder.parent, progress=False
        )
    assert "train.jsonl" in error.value.detail and "force=True" in error.value.hint
    assert train.read_bytes() == before
    assert not (finished.folder / "inputs.part").exists()


def test_inputs_of_a_run_that_failed_can_be_corrected(tmp_path: Path) -> None:
    wrong = inputs(train=(["a good film", "a bad film"], ["good", ""]))
    with pytest.raises(DataError, match="1 fault"):
        kdedge.distill(**wrong, runs=tmp_path, threads=1, progress=False)
    kdedge.distill(**inputs(), runs=tmp_path, threads=1, progress=False)


def test_the_process_stays_as_it_was(finished: kdedge.Run) -> None:
    threads = torch.get_num_threads()
    arguments = inputs()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    kdedge.distill(**arguments, runs=finished.folder.parent, threads=1, progress=False)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    assert torch.get_num_threads() == threads


def test_a_recipe_a_path_and_overrides(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path, train=48)
    document["student"] = factories.tinybert_config()
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(document))
    overrides = {"student.hidden": 16, "name": "other"}
    run = kdedge.distill(path, runs=tmp_path, overrides=overrides, progress=False)
    assert run.folder == tmp_path / "other"
    assert run.recipe.student[0].hidden == 16
    log = Log()
    again = kdedge.distill(
        Recipe.model_validate(document), runs=tmp_path, overrides=overrides, progress=log
    )
    assert again.scores() == run.scores()
    assert any(line.endswith("student: same inputs, kept") for line in log.lines)


def test_several_seeds_and_students(tmp_path: Path) -> None:
    students = {"small": quick_student(), "tiny": kdedge.TinyBert(**factories.tinybert_config())}
    run = kdedge.distill(
        **inputs(student=students), runs=tmp_path, seeds=2, threads=1, progress=False
    )
    assert run.students == ["small", "tiny"]
    assert len(run.seed_stats()["small"].values) == 2
    assert [other.folder.name for other in run.other_seeds] == ["r-seed1"]


def test_an_encoder_is_fine_tuned_and_unlabelled_texts_are_labelled(tmp_path: Path) -> None:
    model, _ = teacher()
    unlabelled, _ = factories.sentences(40, 7)
    run = kdedge.distill(
        **inputs(teacher=BertModel(model.config), unlabelled=list(unlabelled)),
        runs=tmp_path,
        threads=1,
        overrides={"teacher.fit.epochs": 0.5, "augment.filters.balance": 1000.0},
        progress=False,
    )
    assert read_stage(run.run_dir.teacher).result["fine_tuned"]
    texts = read_transfer_set(run.run_dir.transfer).texts
    assert len(texts.rows("pool")) > 30


def test_a_fine_tuned_head_is_used_as_it_is(finished: kdedge.Run) -> None:
    assert not read_stage(finished.run_dir.teacher).result["fine_tuned"]


def written(tmp_path: Path, **changes: Any) -> Recipe:
    """Return the recipe of objects, without training."""
    return load_recipe(write_inputs(inputs(**changes), tmp_path, {}, force=False))


def test_pairs_become_two_columns(tmp_path: Path) -> None:
    pairs = [("the film", "the plot"), ["a cast", "a score"]]
    recipe = written(tmp_path, train=(pairs, ["x", "y"]), test=0.5, unlabelled=pairs)
    assert recipe.data.pair == "pair" and recipe.augment is not None
    lines = (tmp_path / "r" / "inputs" / "train.jsonl").read_text().splitlines()
    assert lines[1] == '{"text": "a cast", "pair": "a score", "label": "y"}'


def test_a_data_set_lends_its_label_names(tmp_path: Path) -> None:
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["bad", "good"])
    )
    train = datasets.Dataset.from_dict(rows(1, 8), features=features)
    assert written(tmp_path, train=train, test=0.5).task.labels == ["bad", "good"]


def test_each_data_set_means_its_own_label_names(tmp_path: Path) -> None:
    def data(seed: int, names: list[str]) -> datasets.Dataset:
        features = datasets.Features(
            text=datasets.Value("string"), label=datasets.ClassLabel(names=names)
        )
        return datasets.Dataset.from_dict(rows(seed, 8), features=features)

    written(tmp_path, train=data(1, ["bad", "good"]), test=data(2, ["good", "bad"]))
    for split, seed, names in (("train", 1, ["bad", "good"]), ("test", 2, ["good", "bad"])):
        lines = (tmp_path / "r" / "inputs" / f"{split}.jsonl").read_text().splitlines()
        meant = [names[label] for label in rows(seed, 8)["label"]]
        assert [json.loads(line)["label"] for line in lines] == meant


def test_many_labels_and_scores_are_written_as_json(tmp_path: Path) -> None:
    texts = ["the film", "the plot"]
    switches = np.array([[1, 0], [1, 1]])
    recipe = written(
        tmp_path, train=(texts, switches), test=0.5, kind="multilabel", labels=["a", "b"]
    )
    assert recipe.task.kind == "multilabel"
    assert '"label": [1, 1]' in (tmp_path / "r" / "inputs" / "train.jsonl").read_text()
    written(tmp_path, train=(texts, torch.tensor([0.5, 1.5])), test=0.5, kind="regression")
    assert '"label": 1.5' in (tmp_path / "r" / "inputs" / "train.jsonl").read_text()


TEXTS = ["the film", "the plot"]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown argument": ({"tokeniser": 1}, "did you mean tokenizer"),
    "nothing": ({"teacher": None}, "teacher is missing"),
    "no train": ({"train": None}, "train is missing"),
    "no test": ({"test": None}, "test=0.2"),
    "no student": ({"student": None}, "BiLstm()"),
    "rows": ({"train": [("a", 0), ("b", 1)]}, "(texts, labels)"),
    "a string": ({"train": ("abc", [0, 1, 0])}, "must be a list"),
    "lengths": ({"train": (TEXTS, [0])}, "2 texts, 1 labels"),
    "no column": ({"train": datasets.Dataset.from_dict({"sentence": TEXTS})}, "sentence"),
    "a data set dict": ({"train": datasets.DatasetDict()}, "form"),
    "text": ({"train": (["the film", None], [0, 1])}, "train[1]"),
    "label": ({"train": (TEXTS, [0, object()])}, "train[1]"),
    "mixed": ({"train": (["the film", ("a", "b")], [0, 1])}, "mixes"),
    "pairs in test": ({"test": ([("a", "b")], [0])}, "pairs in test"),
    "share": ({"test": 2.0}, "between 0 and 1"),
    "teacher": ({"teacher": torch.nn.Linear(2, 2)}, "Linear"),
    "no tokenizer": ({"tokenizer": None}, "AutoTokenizer"),
    "tokenizer of a folder": ({"teacher": "folder"}, "leave tokenizer out"),
    "student": ({"student": "bilstm"}, "no student of kdedge"),
    "name": ({"name": "a/b"}, "name"),
    "kind": ({"kind": "ranking"}, "task.kind"),
    "a name in overrides": ({"overrides": {"name": "x"}}, "name='x'"),
    "an unknown key": ({"overrides": {"student.hiden": 3}}, "did you mean hidden"),
    "seeds": ({"seeds": 0}, "at least 1"),
    "no unlabelled texts": ({"unlabelled": []}, "leave unlabelled out"),
}


@pytest.mark.parametrize("what", WRONG)
def test_every_error_says_what_to_do_and_writes_nothing(what: str, tmp_path: Path) -> None:
    changes, words = WRONG[what]
    runs = tmp_path / "runs"
    with pytest.raises(KdedgeError) as error:
        kdedge.distill(**inputs(**changes), runs=runs, progress=False)
    assert words in error.value.format()
    assert error.value.hint
    assert not runs.exists()


def test_a_recipe_and_objects_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not both"):
        kdedge.distill("recipe.toml", teacher="folder", runs=tmp_path)
    with pytest.raises(UsageError, match="path of a TOML file"):
        kdedge.distill(3, runs=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot be read"):
        kdedge.distill(tmp_path / "missing.toml", runs=tmp_path)


def test_wrong_settings_of_a_student_are_listed() -> None:
    with pytest.raises(UsageError, match="2 faults") as error:
        kdedge.BiLstm(hiden=3, fit={"epochs": -1})  # type: ignore[call-arg]
    assert "did you mean hidden?" in error.value.detail and "fit.epochs" in error.value.detail
    with pytest.raises(UsageError, match="multiple of heads"):
        kdedge.TinyBert(heads=5)
