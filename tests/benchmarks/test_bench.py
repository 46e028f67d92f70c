"""A whole bench on tiny real bundles and a tiny real run, and its errors."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from kdedge.benchmarks import baselines, child, footprint, measure, subjects
from kdedge.benchmarks.against import EarlierReport
from kdedge.benchmarks.bench import bench_bundle, bench_run, bundle_settings
from kdedge.benchmarks.examples import read_examples
from kdedge.benchmarks.measure import split_repeats
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.remote.request import Request
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.sources import differing_parts, plan, subject_names
from kdedge.benchmarks.summary import summary

import kdedge
from kdedge.cli.bench import bench
from kdedge.cli.bench_against import check_same_subjects
from kdedge.data.task import Split, Task
from kdedge.errors import DataError, IntegrityError, KdedgeError, MachineError, UsageError
from kdedge.io.model_files import hash_model
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.manifest import Manifest, write_manifest
from kdedge.runtime.spec import TaskSpec

GOOD, BAD = ("good", "great", "fine", "superb"), ("bad", "awful", "poor", "dull")
FILLER = ("the", "film", "was", "a", "very", "plot", "and", "cast")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *FILLER)
SPEC = TaskSpec("toy", "classification", ("bad", "good"), "accuracy", pair=False)
QUICK = Options(seconds=0.4, batch=4)


def make_split(size: int, seed: int, pair: bool = False) -> Split:
    """Texts of filler with one good or bad word, labelled by it, 5 % wrongly."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, size)
    texts = []
    for label in labels:
        words = list(generator.choice(FILLER, generator.integers(2, 12)))
        shown = label if generator.random() > 0.05 else 1 - label
        words.insert(
            int(generator.integers(len(words))), str(generator.choice(GOOD if shown else BAD))
        )
        texts.append(" ".join(words) + f" {len(texts)}")
    return Split(tuple(texts), tuple(texts[::-1]) if pair else None, labels.astype(np.int64))


TASK = Task(SPEC, make_split(200, 1), make_split(40, 2), make_split(60, 3))


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def save_graph(path: Path) -> None:
    """Write a graph that sums a table of good and bad words over the tokens, without padding."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = np.zeros((len(WORDS), 2), np.float32)
    table[4:8] = [-1, 1]
    table[8:12] = [1, -1]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["each", "column"], ["read"]),
        helper.make_node("ReduceSum", ["read", "axes"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(np.asarray(v), n)
            for n, v in (("table", table), ("axes", np.array([1])), ("last", np.array([2])))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def make_bundle(folder: Path, name: str = "toy-student", source: Path | None = None) -> Path:
    """Write a bundle; source: the stage whose weights its manifest names."""
    folder.mkdir(parents=True)
    save_tokenizer(folder)
    save_graph(folder / "onnx" / "model.onnx")
    save_graph(folder / "onnx" / "model_quantized.onnx")
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("toy\n")
    (folder / "golden.json").write_text(
        json.dumps({"tolerance": {}, "rows": [{"text": text} for text in TASK.test.texts[:12]]})
    )
    manifest = Manifest(
        kdedge=kdedge.__version__,
        name=name,
        spec=SPEC,
        max_length=32,
        pad_token_id=0,
        inputs=("input_ids", "attention_mask"),
        precisions={"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"},
        scheme={"activations": "dynamic"},
        parity={},
        scores={
            "metric": "accuracy",
            "split_size": 60,
            "teacher": 0.95,
            "student": 0.94,
            "fp32": 0.94,
            "int8": 0.94,
        },
        teacher={"model": "big"},
        sources={"weights": source and hash_model(source)},
    )
    write_manifest(folder, manifest)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "toy")


def make_stage(folder: Path, seed: int, kind: str, teacher: str | None = None) -> None:
    """Write a stage as distillation does: a tiny random model, tokenizer, logits and scores."""
    import torch
    from kdedge.benchmarks.torch_runner import torch_runner
    from transformers import BertConfig, BertForSequenceClassification

    from kdedge.runtime.metrics import score
    from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig

    torch.manual_seed(seed)
    model: Any
    if kind == "bilstm":
        model = BiLstmForSequenceClassification(
            BiLstmModelConfig(
                vocab_size=len(WORDS),
                embedding_dim=8,
                hidden_size=4,
                head_size=4,
                dropout=0.0,
                pad_token_id=0,
                pair=False,
                num_labels=2,
            )
        )
    else:
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(WORDS),
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
                num_labels=2,
            )
        )
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    runner = torch_runner(folder, 32, "cpu", 1)
    logits = runner.run(runner.encode(TASK.test.texts, None))
    np.save(folder / "test_logits.npy", logits)
    report = score(TASK.spec, logits, TASK.test.labels)
    result = {
        "metric": "accuracy",
        "test": report,
        "validation": report,
        "model": "/home/somebody/tiny",
        "parameters": 1,
        "max_length": 32,
        "fine_tuned": False,
        "seconds": 1.0,
    }
    document = {"inputs": {"teacher": teacher}, "result": result, "files": {}}
    (folder / "stage.json").write_text(json.dumps(document))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of two students, with all files that distill and export write."""
    from kdedge.recipe import Recipe
    from kdedge.run.layout import RunDir

    recipe = Recipe.model_validate(
        {
            "name": "toy",
            "data": {"source": "nowhere"},
            "teacher": {"model": "tiny"},
            "student": [{"kind": "tinybert", "name": "small"}, {"kind": "bilstm"}],
        }
    )
    run_dir = RunDir.create(recipe, tmp_path_factory.mktemp("runs"))
    make_stage(run_dir.teacher, 0, "bert")
    make_bundle(run_dir.shared / "teacher-bundle", "teacher", run_dir.teacher)
    teacher = hash_model(run_dir.teacher)
    for seed, (name, folders) in enumerate(run_dir.students.items(), 1):
        kind = "bilstm" if name == "bilstm" else "bert"
        make_stage(folders.student, seed, kind, teacher)
        make_stage(folders.baseline, seed + 10, kind, teacher)
        make_bundle(folders.bundle, name, folders.student)
    return run_dir


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the child processes, which take seconds to import torch."""
    figures = footprint.Footprint(0.1, 0.2, 100.0)
    monkeypatch.setattr(
        measure, "footprints", lambda jobs, texts, pairs, progress: dict.fromkeys(jobs, figures)
    )


def write_csv(path: Path, split: Split) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sentence", "class"])
        writer.writerows(
            (text, SPEC.labels[label])
            for text, label in zip(split.texts, split.labels, strict=True)
        )
    return path


def by_key(report: Any) -> dict[tuple[str, str, str | None], dict[str, Any]]:
    return {
        (row["subject"], row["form"], row["precision"]): row for row in report.to_json()["rows"]
    }


# A run


def test_stored_logits_of_other_texts_are_an_error(run: Any, tmp_path: Path) -> None:
    from kdedge.nn.text_model import read_measured

    folder = Path(shutil.copytree(run.teacher, tmp_path / "teacher"))
    document = json.loads((folder / "stage.json").read_text())
    document["inputs"]["data"] = TASK.content_hash()
    (folder / "stage.json").write_text(json.dumps(document))
    assert len(read_measured(folder, TASK)[1]) == len(TASK.test)
    turned = replace(TASK, test=TASK.test.take(list(range(len(TASK.test)))[::-1]))
    with pytest.raises(UsageError, match="data has changed"):
        read_measured(folder, turned)


def test_a_run_is_measured_whole(run: Any, no_children: None) -> None:
    report = bench_run(run, ["small", "bilstm"], options=QUICK, task=TASK)
    rows = by_key(report)
    expected = [
        ("teacher", "torch", "fp32"),
        ("teacher", "onnx", "fp32"),
        ("teacher", "onnx", "int8"),
    ]
    for name in ("small", "bilstm"):
        expected += [
            (name, "torch", "fp32"),
            (name, "onnx", "fp32"),
            (name, "onnx", "int8"),
            (f"{name} baseline", "torch", "fp32"),
        ]
    expected += [("tf-idf + logistic", "simple", None), ("majority class", "simple", None)]
    assert [key for key in rows if key[:2] != ("teacher", "torch")] == expected[1:]
    teacher = rows["teacher", "torch", "fp32"]
    assert (
        teacher["verdict"] == "reference"
        and teacher["value"] == report.teacher["value"]
        and teacher["speedup"] == 1.0
    )
    for key in expected[:-1]:
        row = rows[key]
        timed = "baseline" not in key[0]
        assert (row["p50_us"] is not None) == timed and (row["texts_per_s"] is not None) == timed
        assert row["value"] is not None and row["bytes"] > 0
        if timed:
            assert 0 < row["p50_model_us"] < row["p50_us"] <= row["p90_us"] <= row["p99_us"]
            assert (row["threads"], row["batch"]) == (1, 4)
    assert rows["bilstm", "onnx", "fp32"]["value"] == pytest.approx(_table_accuracy(TASK.test))
    assert rows["bilstm", "onnx", "fp32"]["provider"] == "CPUExecutionProvider"
    assert rows["tf-idf + logistic", "simple", None]["value"] > 0.8
    assert (
        rows["majority class", "simple", None]["kind"]
        == rows["bilstm baseline", "torch", "fp32"]["kind"]
        == "baseline"
    )
    _assert_compared(rows)
    assert report.left_out == () and report.disagreements == ()
    assert len(report.timed_tokens) == 60


def _assert_compared(rows: dict[tuple[str, str, str | None], dict[str, Any]]) -> None:
    """Check that the figures of equivalence are those of the test texts."""
    found = rows["bilstm", "onnx", "int8"]["equivalence"]
    agreement = found["loyalty"]["agreement"]
    assert found["loyalty"]["texts"] == 60 and 0 < agreement < 1
    for name in ("classes", "lengths"):
        assert sum(group["texts"] for group in found[name]) == 60
        assert sum(group["texts"] * group["agreement"] for group in found[name]) == pytest.approx(
            60 * agreement
        )
    gained = found["flips"]["gained"] - found["flips"]["lost"]
    reference = rows["teacher", "torch", "fp32"]
    assert rows["bilstm", "onnx", "int8"]["value"] - reference["value"] == pytest.approx(
        gained / 60, abs=1e-6
    )
    assert found["raw"] == found["calibrated"], "the toy bundle has a temperature of 1"
    assert [each["change"] for each in found["robustness"]] == ["typos", "casing", "truncation"]
    assert reference["equivalence"]["loyalty"] is None
    assert reference["equivalence"]["raw"] is not None
    assert reference["equivalence"]["robustness"] == [], "its fp32 file answers instead"
    assert rows["bilstm baseline", "torch", "fp32"]["equivalence"] is None


def test_texts_are_in_a_report_only_if_asked_for(run: Any, no_children: None) -> None:
    report = bench_run(run, ["bilstm"], options=replace(QUICK, show_texts=True), task=TASK)
    assert 0 < len(report.disagreements) <= 20
    for each in report.disagreements:
        assert each.text in TASK.test.texts and each.teacher != each.student


def _table_accuracy(split: Split) -> float:
    """Count by hand what the toy graph scores."""
    good = [
        sum((word in GOOD) - (word in BAD) for word in text.split()) > 0 for text in split.texts
    ]
    return float(np.mean(np.array(good) == split.labels))


def test_the_stored_logits_are_the_reference_if_the_teacher_does_not_run(
    run: Any, no_children: None
) -> None:
    report = bench_run(run, ["bilstm"], options=replace(QUICK, teacher=False), task=TASK)
    rows = by_key(report)
    assert rows["teacher", "torch", "fp32"]["p50_us"] is None
    student = rows["bilstm", "onnx", "int8"]
    assert student["speedup"] is None and student["retention"] == pytest.approx(
        student["value"] / report.teacher["value"], abs=1e-5
    )
    assert not any(subject == "small" for subject, _, _ in rows)


def test_a_run_of_other_data_is_an_error(run: Any) -> None:
    with pytest.raises(UsageError, match="data has changed"):
        bench_run(
            run, ["bilstm"], options=QUICK, task=replace(TASK, test=TASK.test.take(range(50)))
        )


def test_a_student_without_a_bundle_is_an_error(run: Any, no_children: None) -> None:
    home = run.students["small"].folder
    (home / "bundle").rename(home / "elsewhere")
    try:
        with pytest.raises(UsageError, match="not been exported"):
            bench_run(run, ["small"], options=QUICK, task=TASK)
    finally:
        (home / "elsewhere").rename(home / "bundle")


@pytest.mark.slow
def test_the_command_writes_the_report_into_the_run(
    run: Any, no_children: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdedge.data.load_task", lambda *args, **kwargs: TASK, raising=False)
    result = CliRunner().invoke(
        bench, [str(run.folder), "--seconds", "0.3", "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0
    document = json.loads(result.stdout.strip().splitlines()[-1])
    assert document == json.loads(
        (run.folder / "bench" / "report.json").read_text(encoding="utf-8")
    )
    path = str(run.folder / "bench" / "report.html")
    assert path in result.stderr.replace("\n", "")
    assert document["command"] == "kdedge bench toy --seconds 0.3 --json"
    assert document["teacher"]["model"] == "tiny"
    page = (run.folder / "bench" / "report.md").read_text(encoding="utf-8")
    html_page = (run.folder / "bench" / "report.html").read_text(encoding="utf-8")
    assert not any(example in html_page for example in TASK.test.texts)
    for text in (json.dumps(document), page, html_page):
        assert str(run.folder) not in text and "/home" not in text, (
            "a report holds no paths of this machine"
        )
    one = CliRunner().invoke(
        bench,
        [str(run.students["bilstm"].bundle), "--seconds", "0.3"],
        catch_exceptions=False,
    )
    assert (
        one.exit_code == 0 and "bilstm onnx int8" in one.stdout and "small onnx" not in one.stdout
    )
    assert (run.students["bilstm"].bench / "report.md").is_file()


def test_the_api_replaces_no_report_of_other_settings(
    run: Any, no_children: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(
        "kdedge.api.bench.bench_run",
        lambda run, students, **settings: made.append(settings["options"].threads),
    )
    monkeypatch.setattr("kdedge.api.bench.write_report", lambda report, folder: folder.mkdir())
    kdedge.bench(run.folder, threads=2)
    assert made == [2] and (run.folder / "bench-threads-2").is_dir()
    (run.folder / "bench").mkdir(exist_ok=True)
    (run.folder / "bench" / "report.json").write_text('{"settings": {"threads": 1}}')
    with pytest.raises(UsageError, match="made with other settings"):
        kdedge.bench(run.folder, threads=2, out=run.folder / "bench")
    assert made == [2]


def test_no_report_goes_into_a_bundle_of_a_run(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdedge.cli.bench.measure_run", None)
    monkeypatch.setattr("kdedge.api.bench.bench_run", None)
    small, bilstm = (run.students[name].bundle for name in ("small", "bilstm"))
    for target, bundle in ((run.folder, small), (small, bilstm), (small, run.teacher_bundle)):
        for out in (bundle, bundle / "report"):
            with pytest.raises(UsageError, match="cannot be written into a bundle") as caught:
                kdedge.bench(target, out=out)
            assert str(bundle) in caught.value.detail
            arguments = [str(target), "--out", str(out)]
            with pytest.raises(UsageError, match="cannot be written into a bundle"):
                CliRunner().invoke(bench, arguments, catch_exceptions=False)


def test_the_api_replaces_no_report_of_another_bundle(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    kdedge.bench(bundle, repeats=1, out=out)
    kdedge.bench(bundle, repeats=2, out=out)
    content = (out / "report.json").read_bytes()
    with pytest.raises(UsageError, match=r"(?s)other settings.*batch: 32 there, 4 now"):
        kdedge.bench(bundle, repeats=1, batch=4, out=out)
    assert (out / "report.json").read_bytes() == content


def test_targets_resolve_to_students_or_bundles(run: Any, bundle: Path) -> None:
    assert plan([run.folder]).students == ("small", "bilstm")
    assert plan([run.students["bilstm"].folder]).students == ("bilstm",)
    assert (
        plan([run.students["small"].bundle, run.students["bilstm"].bundle]).out
        == run.folder / "bench"
    )
    assert set(plan([run.folder], alone=True).bundles) == {
        folders.bundle.resolve() for folders in run.students.values()
    }
    assert plan([run.folder]).run is not None and plan([bundle]).run is None
    assert plan([run.students["small"].bundle, bundle]).run is None
    assert plan([run.shared / "teacher-bundle"]).run is None
    with pytest.raises(UsageError, match="neither a bundle nor a run"):
        plan([run.teacher])


def test_without_the_lab_a_run_means_its_bundles(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdedge.io.optional.find_spec", lambda name: None)
    found = plan([run.folder])
    assert found.run is None and len(found.bundles) == 2 and "torch" in found.why


# Bundles alone


@pytest.mark.slow
def test_a_bundle_is_measured_on_given_texts(bundle: Path, tmp_path: Path) -> None:
    given = read_examples(
        write_csv(tmp_path / "t.csv", TASK.test), SPEC, text="sentence", label="class"
    )
    report = bench_bundle([bundle], options=QUICK, examples=given)
    row = by_key(report)["toy-student", "onnx", "int8"]
    assert row["value"] == pytest.approx(_table_accuracy(TASK.test))
    assert row["value_low"] < row["value"] < row["value_high"]
    assert row["retention"] is None and row["verdict"] is None
    assert report.teacher["value"] is None
    assert 5 < row["peak_mb"] < 2000 and row["load_s"] > 0, row["notes"]
    assert any("dynamic int8" in note for note in row["notes"])
    notes = [note for note in report.notes if note.startswith("no retention: ")]
    assert len(notes) == 1 and "on 60 test texts of its own it reaches accuracy 0.9500" in notes[0]
    assert summary(report).startswith("toy-student onnx ")
    assert " reaches accuracy " in summary(report) and "retains" not in summary(report)


def test_without_labels_only_time_is_measured(bundle: Path, no_children: None) -> None:
    report = bench_bundle([bundle], options=QUICK)
    assert report.task["texts"] == 12 and not report.task["measured"]
    row = by_key(report)["toy-student", "onnx", "fp32"]
    assert (row["metric"], row["value"], row["retention"], row["verdict"]) == (None,) * 4
    assert row["p50_us"] > 0
    assert row["equivalence"]["robustness"] == [] and len(report.left_out) == 3


@pytest.mark.parametrize("repeats", [24, 25, 7])
def test_exactly_the_requested_repeats_are_measured(
    bundle: Path, no_children: None, repeats: int
) -> None:
    report = bench_bundle([bundle], options=replace(QUICK, repeats=repeats))
    for row in report.rows:
        assert row.single is not None and len(row.single.values) == repeats


def test_repeats_split_into_rounds_and_visits() -> None:
    assert split_repeats(24) == (3, 8)
    assert split_repeats(25) == (5, 5)
    assert split_repeats(23) == (23, 1)


def test_a_provider_that_is_not_there_is_an_error(bundle: Path, no_children: None) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(MachineError):
        bench_bundle([bundle], options=replace(QUICK, providers=("cuda",)))


def test_int8_is_measured_on_the_cpu_alone(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another provider parts of an int8 graph silently run on the CPU."""
    load = subjects.Classifier.from_bundle

    def on_cuda(opened: Any, precision: str, provider: str, threads: int | None) -> Any:
        classifier = load(opened, precision, "cpu", threads)
        classifier.provider = "CUDAExecutionProvider"
        return classifier

    monkeypatch.setattr(subjects.Classifier, "from_bundle", on_cuda)
    opened = Bundle.open(bundle)
    cuda = Options(providers=("cuda",))
    (subject,) = subjects.bundle_subjects("x", opened, None, None, cuda)
    assert (subject.precision, subject.provider) == ("fp32", "CUDAExecutionProvider")
    only_int8 = replace(
        opened, manifest=replace(opened.manifest, precisions={"int8": "onnx/model_quantized.onnx"})
    )
    with pytest.raises(MachineError, match="nothing in this bundle runs on cuda"):
        list(subjects.bundle_subjects("x", only_int8, None, None, cuda))


def test_a_damaged_bundle_is_never_timed(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    data = bytearray((copy / "onnx" / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "onnx" / "model.onnx").write_bytes(data)
    with pytest.raises(IntegrityError):
        bench_bundle([copy], options=QUICK)


def test_bundles_of_different_tasks_are_not_mixed(bundle: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other")
    (other / "kdedge.json").unlink()
    write_manifest(
        other,
        replace(Bundle.open(bundle).manifest, spec=replace(SPEC, labels=("yes", "no")), files={}),
    )
    with pytest.raises(UsageError, match="different tasks"):
        bench_bundle([bundle, other], options=QUICK)


@pytest.fixture
def exports(tmp_path: Path) -> list[Path]:
    """An old and a new export of one student, which have equal names."""
    return [make_bundle(tmp_path / name / "bilstm" / "bundle") for name in ("old", "new")]


def test_bundles_of_equal_names_are_told_apart(
    exports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(jobs: dict[str, Any], *_: object) -> dict[str, footprint.Footprint]:
        peak = {str(exports[0]): 100.0, str(exports[1]): 200.0}
        return {
            key: footprint.Footprint(0.1, 0.2, peak[job["folder"]]) for key, job in jobs.items()
        }

    monkeypatch.setattr(measure, "footprints", measured)
    report = bench_bundle(exports, options=replace(QUICK, scenarios=("single", "offline")))
    assert [(row.label, row.footprint.peak_mb) for row in report.rows] == [
        ("old/toy-student onnx fp32", 100.0),
        ("old/toy-student onnx int8", 100.0),
        ("new/toy-student onnx fp32", 200.0),
        ("new/toy-student onnx int8", 200.0),
    ]
    assert {each.subject for each in report.scenarios.series} == {row.key for row in report.rows}
    assert len({id(row.single) for row in report.rows}) == 4, "each has its own times"


def test_the_error_on_equal_names_tells_them_apart(exports: list[Path]) -> None:
    manifest = Bundle.open(exports[1]).manifest
    (exports[1] / "kdedge.json").unlink()
    write_manifest(
        exports[1], replace(manifest, scores={**manifest.scores, "teacher": 0.5}, files={})
    )
    with pytest.raises(UsageError, match="different teachers") as caught:
        bench_bundle(exports, options=QUICK)
    assert caught.value.detail == "old/toy-student: 0.95, new/toy-student: 0.5"


def test_an_earlier_bench_has_the_same_names(exports: list[Path], tmp_path: Path) -> None:
    earlier = EarlierReport(tmp_path, "", {}, "", ScenarioResults(), {})
    series = Series("gate", "old/toy-student onnx fp32 CPUExecutionProvider", np.ones(1))
    earlier = replace(earlier, scenarios=ScenarioResults((series,)))
    bundles = [Bundle.open(folder) for folder in exports]
    check_same_subjects(earlier, subject_names(bundles))
    with pytest.raises(UsageError, match="no subject in common"):
        check_same_subjects(earlier, subject_names(bundles[:1]))


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (("/a/old", "/a/new"), ["old", "new"]),
        (("/a/qa/bilstm/bundle", "/a/qb/bilstm/bundle"), ["qa", "qb"]),
        (("/a/old/bundle", "/a/new"), ["old", "new"]),
        (("/a/x/s", "/a/y/s", "/b/x/s"), ["a/x", "a/y", "b/x"]),
        (("/s", "/a/s"), ["/", "a"]),
    ],
)
def test_the_shortest_parts_tell_paths_apart(folders: tuple[str, ...], parts: list[str]) -> None:
    assert differing_parts([Path(folder) for folder in folders]) == parts


def test_a_bench_on_another_machine_has_the_same_names(exports: list[Path], tmp_path: Path) -> None:
    names = Request(exports, ()).arguments()
    assert names == ["./old/bilstm", "./new/bilstm"]
    copies = [
        shutil.copytree(f, tmp_path / "there" / n) for n, f in zip(names, exports, strict=True)
    ]
    here, there = ([Bundle.open(each) for each in folders] for folders in (exports, copies))
    assert subject_names(here) == subject_names(there)
    assert bundle_settings(here, QUICK, None) == bundle_settings(there, QUICK, None)
    assert Request(exports[:1], ()).arguments() == ["./bilstm"]


def test_a_bundle_is_named_once(run: Any, bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bundle)
    for twice in ([bundle, bundle], [bundle, link], [run.folder, run.students["small"].bundle]):
        with pytest.raises(UsageError, match="named twice"):
            kdedge.bench(twice)
    with pytest.raises(UsageError, match="named twice"):
        bench_bundle([bundle, link], options=QUICK)


@pytest.mark.slow
def test_the_command_shows_a_table_and_leaves_the_bundle_alone(
    bundle: Path, tmp_path: Path, no_children: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_csv(tmp_path / "t.csv", TASK.test)
    flags = ["--data", str(data), "--text", "sentence", "--label", "class", "--seconds", "0.3"]
    before = sorted(bundle.rglob("*"))
    result = CliRunner().invoke(bench, [str(bundle), *flags], catch_exceptions=False)
    assert result.exit_code == 0
    *shown, sentence, empty, path = result.stdout.splitlines()
    assert "toy-student onnx int8" in result.stdout
    assert path == "report: bench/toy-data-t/report.html" and empty == ""
    assert " reaches accuracy " in " ".join([*shown[-3:], sentence])
    assert max(len(line) for line in shown if not line.startswith("- ")) <= 120
    document = json.loads(Path("bench/toy-data-t/report.json").read_text())
    assert document["command"] == (
        f"kdedge bench {bundle.name} --data t.csv --text sentence --label class --seconds 0.3"
    )
    assert document["settings"]["data"]["file"] == "t.csv"
    assert sorted(bundle.rglob("*")) == before
    inside = CliRunner().invoke(bench, [str(bundle), *flags, "--out", str(bundle / "bench")])
    assert isinstance(inside.exception, UsageError)
    flags[1] = str(write_csv(tmp_path / "u.csv", TASK.validation))
    other = CliRunner().invoke(bench, [str(bundle), *flags, "--out", "bench/toy-data-t"])
    assert isinstance(other.exception, UsageError) and "u.csv" in other.exception.detail
    assert json.loads(Path("bench/toy-data-t/report.json").read_text()) == document


def test_the_report_of_another_run_is_kept(
    tmp_path: Path, no_children: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundles of all runs have the same folder names."""
    monkeypatch.chdir(tmp_path)
    data = write_csv(tmp_path / "t.csv", TASK.validation)
    first = make_bundle(tmp_path / "qa" / "bilstm" / "bundle", "qa-bilstm")
    second = make_bundle(tmp_path / "qb" / "bilstm" / "bundle", "qb-bilstm")
    columns = ("--text", "sentence", "--label", "class")
    for words, folder in (
        ((), "bench/bilstm"),
        (("--data", str(data), *columns), "bench/bilstm-data-t"),
    ):

        def measure(bundle: Path, *more: str) -> None:
            arguments = [str(bundle), "--repeats", "1", *more]
            assert CliRunner().invoke(bench, arguments, catch_exceptions=False).exit_code == 0

        measure(first, *words)
        content = Path(folder, "report.json").read_bytes()
        with pytest.raises(UsageError, match="models: qa-bilstm there, qb-bilstm now"):
            measure(second, *words)
        assert Path(folder, "report.json").read_bytes() == content
    shutil.rmtree(first)
    exported_again = make_bundle(first, "qa-bilstm", second)
    measure(exported_again)


def test_other_labels_are_other_settings(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    spec = replace(SPEC, name="other", labels=("no", "yes"))
    other = replace(opened, manifest=replace(opened.manifest, spec=spec))
    before, after = (bundle_settings([each], QUICK, None) for each in (opened, other))
    assert {name for name in after if after[name] != before[name]} == {"task", "labels"}


# Texts of the user's own


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'text,label\n"good, really",good\nbad,bad\n'),
        ("t.tsv", "text\tlabel\ngood, really\t1\nbad\t0\n"),
        ("t.tsv", 'text\tlabel\n"good, really\t1\nbad\t0\n'),
        ("t.jsonl", '{"text": "good, really", "label": 1}\n\n{"text": "bad", "label": 0}\n'),
        ("t.csv", '\ufefftext,label\r\n"good, really",good\r\nbad,bad\r\n'),
    ],
)
def test_texts_are_read_from_every_form(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    examples = read_examples(path, SPEC)
    assert (
        [text.strip('"') for text in examples.texts] == ["good, really", "bad"]
        and examples.labels is not None
        and examples.labels.tolist() == [1, 0]
    )


def test_plain_texts_have_no_labels(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo, three\n\n", encoding="utf-8")
    examples = read_examples(tmp_path / "t.txt", SPEC)
    assert examples.texts == ["one", "two, three"] and examples.labels is None


def test_labels_of_every_kind_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,label\nx,y,joy | fear\nz,w,\n", encoding="utf-8")
    many = TaskSpec("toy", "multilabel", ("fear", "joy", "anger"), "micro_f1", pair=True)
    examples = read_examples(path, many, text="a", pair="b")
    assert (
        examples.pairs == ["y", "w"]
        and examples.labels is not None
        and examples.labels.tolist() == [[1, 1, 0], [0, 0, 0]]
    )
    path.write_text("text,label\nx,2.5\n", encoding="utf-8")
    number = read_examples(
        path, TaskSpec("toy", "regression", ("score",), "pearson", pair=False)
    ).labels
    assert number is not None and number.tolist() == [2.5]
    digits = TaskSpec("toy", "classification", ("1", "0"), "accuracy", pair=False)
    path.write_text("text,label\nx,1\n", encoding="utf-8")
    assert read_examples(path, digits).labels.tolist() == [0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "text,label\nx,lovely\n", ":2: label 'lovely'"),
        ("t.csv", "text,label\nx,7\n", ":2: label '7'"),
        ("t.csv", "text,label\nx\n", "t.csv:2: 1 fields, but the header has 2"),
        ("t.csv", "words,label\nx,good\n", "no column 'text'"),
        ("t.csv", 'text,label\n"x,good\n', "t.csv:2: unexpected end of data"),
        ("t.jsonl", '{"text": "x"}\n{"text": \n', ":2"),
        ("t.jsonl", '{"text": 3}\n', "t.jsonl:1: column 'text' is not a text but 3"),
        ("t.jsonl", "[1]\n", "t.jsonl:1: not a JSON object"),
        ("t.csv", "text,label\n", "nothing to bench"),
        ("t.txt", "caf\udce9\n", "t.txt:1: byte 0xe9 at offset 3 is not utf-8"),
        ("t.xlsx", "x", "file type is not supported"),
    ],
)
def test_errors_in_files_name_the_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises((DataError, UsageError)) as caught:
        read_examples(path, SPEC)
    assert message in str(caught.value)


# Baselines


def test_baselines_of_every_kind_of_task() -> None:
    from kdedge.runtime.metrics import score

    generator = np.random.default_rng(0)

    def relabelled(kind: str, split: Split) -> Split:
        if kind == "regression":
            return replace(
                split,
                labels=(split.labels * 4 + generator.normal(0, 0.1, len(split))).astype(np.float32),
            )
        return replace(
            split,
            labels=np.stack([split.labels, 1 - split.labels, np.ones(len(split))], 1).astype(
                np.float32
            ),
        )

    for kind, metric, labels in (
        ("regression", "pearson", ("score",)),
        ("multilabel", "micro_f1", ("good", "bad", "any")),
    ):
        spec = TaskSpec("toy", kind, labels, metric, pair=True)  # type: ignore[arg-type]
        parts = [
            relabelled(kind, make_split(size, seed, pair=True))
            for size, seed in ((200, 1), (10, 2), (50, 3))
        ]
        task = Task(spec, *parts)
        words, constant = baselines.tfidf(task), baselines.constant(task)
        assert words.logits is not None and words.logits.shape == (50, len(labels))
        assert constant.logits is not None and constant.logits.shape == (50, len(labels))
        words_score = score(spec, words.logits, task.test.labels)
        constant_score = score(spec, constant.logits, task.test.labels)
        assert words_score > 0.6 and words_score > constant_score


def test_a_class_missing_from_train_is_never_predicted() -> None:
    spec = replace(SPEC, labels=("bad", "never", "good"))
    shifted = [replace(s, labels=s.labels * 2) for s in (TASK.train, TASK.validation, TASK.test)]
    logits = baselines.tfidf(Task(spec, *shifted)).logits
    assert logits is not None and logits.shape == (60, 3) and set(logits.argmax(1)) == {0, 2}


def test_the_majority_class_comes_from_train() -> None:
    skewed = replace(TASK, train=TASK.train.take(np.flatnonzero(TASK.train.labels == 1)))
    logits = baselines.constant(skewed).logits
    assert logits is not None and (logits.argmax(1) == 1).all()


# Children


def onnx_job(folder: Path) -> dict[str, Any]:
    return {
        "form": "onnx",
        "folder": str(folder),
        "precision": "fp32",
        "provider": "cpu",
        "threads": 1,
    }


def torch_job(folder: Path) -> dict[str, Any]:
    return {"form": "torch", "folder": str(folder), "max_length": 32, "device": "cpu", "threads": 1}


@pytest.mark.slow
def test_the_memory_of_a_child_is_its_own(bundle: Path) -> None:
    """The parent holds 600 MB here; a child that showed them would show its parent's peak."""
    ballast = np.ones(75_000_000)
    measured = footprint.footprints({"a": onnx_job(bundle)}, ["good film"], None)["a"]
    assert (
        measured.problem == ""
        and measured.peak_mb is not None
        and 5 < measured.peak_mb < ballast.nbytes / 2**20
    )


@pytest.mark.slow
def test_each_torch_subject_is_measured_alone(run: Any) -> None:
    jobs = {
        "teacher": torch_job(run.teacher),
        "gone": torch_job(run.teacher / "nothing"),
        "bilstm": torch_job(run.students["bilstm"].student),
    }
    measured = footprint.footprints(jobs, ["good film"], None)
    assert list(measured) == list(jobs)
    assert "not measured" in measured["gone"].problem and measured["gone"].peak_mb is None
    for key in ("teacher", "bilstm"):
        figures = measured[key]
        assert figures.problem == "" and figures.load_s is not None and figures.load_s > 0
        assert figures.peak_mb is not None and figures.peak_mb > 100
        assert figures.import_s is not None and figures.import_s > 0


def test_a_child_does_not_show_the_memory_of_the_one_before(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two jobs takes 300 MB, which the second must not show."""
    monkeypatch.setattr(child, "LOADER", GREEDY_LOADER)
    measured = footprint.footprints(
        {"greedy": onnx_job(bundle) | {"greedy": True}, "modest": onnx_job(bundle)},
        ["good film"],
        None,
    )
    greedy, modest = measured["greedy"].peak_mb, measured["modest"].peak_mb
    assert greedy is not None and modest is not None and greedy > modest + 250


GREEDY_LOADER = child.LOADER.replace(
    "importlib.import_module(work",
    """
from kdedge.benchmarks import footprint
measure = footprint.measure

def greedy(job, loader, import_s, work):
    ballast = b"x" * (300 << 20 if job.get("greedy") else 0)
    return measure(job, loader, import_s, work)

footprint.measure = greedy
importlib.import_module(work""",
)


def test_a_child_that_fails_is_a_note_and_no_crash(tmp_path: Path) -> None:
    measured = footprint.footprints({"a": onnx_job(tmp_path), "b": onnx_job(tmp_path)}, ["x"], None)
    assert all(
        f.peak_mb is None and "UsageError: this is not a bundle" in f.problem
        for f in measured.values()
    )


def test_a_child_that_dies_is_a_note_and_no_crash(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "LOADER", "raise SystemExit(3)")
    assert "ended early" in footprint.footprints({"a": onnx_job(bundle)}, ["x"], None)["a"].problem


def test_the_command_imports_no_package_of_the_train_extra() -> None:
    heavy = ["torch", "transformers", "sklearn", "pydantic", "datasets", "onnx", "filelock"]
    code = (
        f"import sys, kdedge; kdedge.__path__ = {list(map(str, kdedge.__path__))!r}; "
        "import kdedge.cli.bench; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(kdedge.__file__).parent.parent,
    )
    assert done.stdout.strip() == "[]"


def test_a_folder_that_is_no_bundle_is_an_error_with_a_hint(bundle: Path) -> None:
    with pytest.raises(KdedgeError) as caught:
        plan([bundle.parent])
    assert "hint:" in str(caught.value)
