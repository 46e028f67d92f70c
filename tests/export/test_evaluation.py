"""Evaluation texts of a bundle: they are packed on request, and nothing but a bench uses them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from kdedge.benchmarks.bench import bench_bundle, run_examples
from kdedge.benchmarks.options import Options
from kdedge.export.export import export_run
from kdedge_process import call_kdedge

from kdedge.errors import IntegrityError, UsageError
from kdedge.run.layout import RunDir
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.bundle_source import open_bundle
from kdedge.runtime.evaluation import EvaluationTexts, read_evaluation
from kdedge.runtime.hub_upload import upload_bundle
from kdedge.runtime.layout import EVALUATION, MAX_EVALUATION_BYTES, size_limit
from kdedge.runtime.manifest import write_manifest
from kdedge.runtime.metrics import score

pytestmark = pytest.mark.slow

TASK = factories.single_task()
TEXT = "the film was lovely"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose student was exported with evaluation texts."""
    made = factories.make_run(tmp_path_factory.mktemp("runs"), TASK)
    export_run(made, ["bilstm"], task=TASK, options=factories.both_files(with_eval=True))
    return made


@pytest.fixture
def bundle(run: RunDir, tmp_path: Path) -> Path:
    """A copy to break, outside of its run."""
    return factories.copy_bundle(run.students["bilstm"].bundle, tmp_path)


def rewrite(bundle: Path, **changes: Any) -> None:
    """Change fields of evaluation.json; the manifest lists the changed file."""
    manifest = Bundle.open(bundle).manifest
    document = json.loads((bundle / EVALUATION).read_text()) | changes
    (bundle / EVALUATION).write_text(json.dumps(document))
    write_manifest(bundle, manifest)


# Export


def test_the_test_split_and_the_teachers_logits_travel_unchanged(run: RunDir) -> None:
    found = read_evaluation(Bundle.open(run.students["bilstm"].bundle))
    assert found is not None
    assert found.texts == TASK.test.texts
    assert found.pairs is None
    assert found.labels.dtype == TASK.test.labels.dtype
    np.testing.assert_array_equal(found.labels, TASK.test.labels)
    np.testing.assert_array_equal(found.teacher_logits, np.load(run.teacher / "test_logits.npy"))


def test_manifest_and_card_say_that_texts_travel(run: RunDir) -> None:
    folder = run.students["bilstm"].bundle
    content = (folder / EVALUATION).read_bytes()
    entry = json.loads((folder / "kdedge.json").read_text())["files"][EVALUATION]
    assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    card = (folder / "README.md").read_text()
    assert f"{EVALUATION} holds all {len(TASK.test)} texts of the test split" in card


def test_no_texts_travel_unless_asked_for(run: RunDir, tmp_path: Path) -> None:
    """A bundle with texts is not the current one for an export without."""
    copy = RunDir.open(Path(shutil.copytree(run.folder, tmp_path / "runs" / "tiny")))[0]
    export_run(copy, ["bilstm"], task=TASK, options=factories.both_files())
    folder = copy.students["bilstm"].bundle
    assert not (folder / EVALUATION).exists()
    assert EVALUATION not in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["single", "pair", "multilabel", "regression"])
def test_every_kind_of_task_is_read_back(name: str) -> None:
    task = factories.TASKS[name]()
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(task.test), task.spec.outputs)).astype(np.float32)
    packed = EvaluationTexts(task.test.texts, task.test.pairs, task.test.labels, logits)
    found = EvaluationTexts.from_json(json.loads(packed.to_text()), task.spec)
    assert (found.texts, found.pairs) == (task.test.texts, task.test.pairs)
    assert found.labels.dtype == task.test.labels.dtype
    np.testing.assert_array_equal(found.labels, task.test.labels)
    np.testing.assert_array_equal(found.teacher_logits, logits)


def test_a_test_split_that_is_too_large_is_an_error() -> None:
    assert size_limit(EVALUATION) == MAX_EVALUATION_BYTES
    long = EvaluationTexts(("x" * MAX_EVALUATION_BYTES,), None, np.array([0]), None)
    with pytest.raises(UsageError, match="too large"):
        long.to_text()
    many = EvaluationTexts((",",) * 1_000_001, None, np.zeros(1_000_001, np.int64), None)
    with pytest.raises(UsageError, match="too large"):
        many.to_text()


# What reads it


def test_predictions_do_not_read_evaluation_texts(bundle: Path, tmp_path: Path) -> None:
    expected = Classifier.load(bundle).predict(TEXT)
    path = bundle / EVALUATION
    path.write_bytes(b"x" * path.stat().st_size)
    assert Classifier.load(bundle).predict(TEXT) == expected
    done = call_kdedge("verify", str(bundle))
    assert done.returncode == 5
    assert EVALUATION in done.stderr
    with pytest.raises(IntegrityError, match=EVALUATION):
        read_evaluation(Bundle.open(bundle))


def test_a_zip_does_not_keep_them_in_memory_but_checks_them(bundle: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "good"), "zip", bundle)
    opened = open_bundle(archive)
    assert EVALUATION not in opened.contents
    assert opened.contents.keys() == opened.manifest.files.keys() - {EVALUATION}
    path = bundle / EVALUATION
    path.write_bytes(b"x" * path.stat().st_size)
    archive = shutil.make_archive(str(tmp_path / "bad"), "zip", bundle)
    with pytest.raises(IntegrityError, match=EVALUATION):
        open_bundle(archive)


def test_they_do_not_count_as_size_of_the_model(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    others = {EVALUATION, manifest.precisions["fp32"]}
    sizes = [(bundle / name).stat().st_size for name in manifest.files if name not in others]
    assert manifest.size("int8") == sum(sizes)


@pytest.mark.parametrize(
    "changes",
    [
        {"texts": []},
        {"texts": "one"},
        {"labels": [0]},
        {"labels": [7] * len(TASK.test)},
        {"labels": [-1] * len(TASK.test)},
        {"labels": [0.5] * len(TASK.test)},
        {"labels": [float("nan")] * len(TASK.test)},
        {"labels": ["good"] * len(TASK.test)},
        {"teacher_logits": [[1.0, 2.0]]},
        {"teacher_logits": [[1.0]] * len(TASK.test)},
        {"teacher_logits": [[1.0, float("inf")]] * len(TASK.test)},
        {"teacher_logits": [[1.0], [1.0, 2.0]]},
    ],
)
def test_malformed_texts_are_refused(bundle: Path, changes: dict[str, Any]) -> None:
    rewrite(bundle, **changes)
    with pytest.raises(IntegrityError, match="malformed"):
        read_evaluation(Bundle.open(bundle))


# Commands


def test_info_shows_them(bundle: Path) -> None:
    done = call_kdedge("info", str(bundle))
    assert f"{len(TASK.test)} evaluation texts, word for word" in done.stdout
    assert EVALUATION in done.stdout
    document = json.loads(call_kdedge("info", str(bundle), "--json").stdout)
    assert document["evaluation"] == {"texts": len(TASK.test), "teacher_logits": True}
    without = call_kdedge("info", str(factories.tiny_bundle()))
    assert "evaluation" not in without.stdout


def test_a_push_of_texts_needs_an_option(bundle: Path) -> None:
    """Nothing is sent; with the option, the next error is the missing login."""
    done = call_kdedge("push", str(bundle), "me/tiny", HF_TOKEN="")
    assert done.returncode == 2
    assert "users' texts, word for word" in done.stderr
    with pytest.raises(UsageError, match="word for word"):
        upload_bundle(Bundle.open(bundle), "me/tiny")
    done = call_kdedge("push", str(bundle), "me/tiny", "--with-eval", HF_TOKEN="")
    assert done.returncode == 4
    assert "logged in" in done.stderr


def test_a_finished_bundle_gets_no_texts(bundle: Path) -> None:
    done = call_kdedge("export", str(bundle), "--with-eval")
    assert done.returncode == 2
    assert "a finished bundle stays as it is" in done.stderr


# Bench


def test_a_bench_of_the_bundle_alone_compares_with_the_teacher(run: RunDir, bundle: Path) -> None:
    report = bench_bundle([bundle], options=Options(repeats=2, batch=2))
    labels = TASK.test.labels
    teacher = np.load(run.teacher / "test_logits.npy")
    assert report.task["digest"] == run_examples(TASK).digest()
    assert report.settings["data"]["file"] == EVALUATION
    assert not any(line.startswith("agreement with the teacher") for line in report.left_out)
    for row in report.rows:
        logits = Classifier.load(bundle, row.precision).logits(TASK.test.texts)
        accuracy = float((logits.argmax(1) == labels).mean())
        assert row.value == pytest.approx(accuracy)
        assert row.retention is not None and row.equivalence is not None
        reference = score(TASK.spec, teacher, labels)
        assert row.retention.ratio == pytest.approx(accuracy / reference)
        assert row.equivalence.loyalty is not None
        same = float((logits.argmax(1) == teacher.argmax(1)).mean())
        assert row.equivalence.loyalty.agreement == pytest.approx(same)
        assert row.agreement is None or row.agreement.agreements[-1] == pytest.approx(same)


def test_texts_without_the_teachers_logits_have_a_score_and_no_retention(bundle: Path) -> None:
    rewrite(bundle, teacher_logits=None)
    report = bench_bundle([bundle], options=Options(repeats=2, batch=2))
    assert any(note.startswith("no retention: ") for note in report.notes)
    assert all(row.value is not None and row.retention is None for row in report.rows)


def test_given_texts_come_before_packed_ones(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("a text\nanother text\n")
    arguments = ["--data", "own.txt", "--repeats", "2", "--out", "report", "--json"]
    done = call_kdedge("bench", "bundle", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task"]["texts"] == 2
    arguments = ["--repeats", "2", "--out", "packed", "--json"]
    done = call_kdedge("bench", "bundle", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["task"]["texts"] == len(TASK.test)


def test_a_model_in_memory_has_no_test_split(tmp_path: Path) -> None:
    import kdedge

    with pytest.raises(UsageError, match="test split"):
        kdedge.export_bundle(
            factories.random_student("tinybert", TASK.spec),
            tokenizer=factories.tokenizer(),
            calibration=(list(TASK.train.texts), list(map(int, TASK.train.labels))),
            out=tmp_path / "bundle",
            with_eval=True,
        )
