"""Small real things that tests share: texts, tasks, models, run folders and bundles.

Everything is made in milliseconds to seconds, by the code of the product, and is the same in
every process. Sections: texts and tasks, models, recipes, run folders, bundles, fake quantization.
"""

from __future__ import annotations

import atexit
import json
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kdedge.data.task import Split, Task
from kdedge.nn.labels import label_config
from kdedge.recipe import Recipe
from kdedge.run.layout import RunDir
from kdedge.runtime.layout import AGREEMENT, EVALUATION, LAYOUT, PRECISIONS, SBOM
from kdedge.runtime.spec import TaskSpec
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig

if TYPE_CHECKING:
    from kdedge.export.export import ExportOptions
    from kdedge.export.pack import ExportInput
    from kdedge.export.scheme import QuantScheme

# Texts and tasks

GOOD = "good great lovely warm bright clever moving".split()
BAD = "bad awful dull cold grim clumsy boring".split()
THINGS = "film plot cast score ending scene story camera actor script".split()

SPLIT_SIZES = {"validation": 32, "test": 48}
SPLIT_SEEDS = {"train": 1, "validation": 2, "test": 3}


def sentences(count: int, seed: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Write sentences of many lengths; the label (0 or 1) is whether their one opinion is good."""
    chance = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        label = chance.randrange(2)
        subject = " and ".join(chance.sample(THINGS, chance.randint(1, 5)))
        opinion = chance.choice((BAD, GOOD)[label])
        texts.append(f"the {subject} was {opinion} {chance.randrange(10**6)}")
        labels.append(label)
    return tuple(texts), np.array(labels, dtype=np.int64)


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    """Return the Jaccard similarity of two sets; they must not both be empty."""
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def single_task(train: int = 96) -> Task:
    """Two classes that a tiny model can learn."""

    def split(count: int, seed: int) -> Split:
        texts, labels = sentences(count, seed)
        return Split(texts, None, labels)

    spec = TaskSpec("tiny", "classification", ("bad", "good"), "accuracy", pair=False)
    return _task(spec, split, train)


def pair_task(train: int = 96) -> Task:
    """Pairs of texts; the label is whether both contain the same opinion."""

    def split(count: int, seed: int) -> Split:
        texts, left = sentences(count, seed)
        pairs, right = sentences(count, seed + 100)
        return Split(texts, pairs, (left == right).astype(np.int64))

    spec = TaskSpec("tinypair", "classification", ("differ", "agree"), "accuracy", pair=True)
    return _task(spec, split, train)


def multilabel_task() -> Task:
    """Texts whose labels are the things that they mention."""
    things = ("film", "plot", "cast")

    def split(count: int, seed: int) -> Split:
        texts, _ = sentences(count, seed)
        labels = [[thing in text for thing in things] for text in texts]
        return Split(texts, None, np.array(labels, dtype=np.float32))

    return _task(TaskSpec("tinymulti", "multilabel", things, "micro_f1", pair=False), split)


def regression_task() -> Task:
    """Pairs of texts; the label is how much longer the first one is."""

    def split(count: int, seed: int) -> Split:
        texts, _ = sentences(count, seed)
        pairs, _ = sentences(count, seed + 100)
        labels = [len(a) - len(b) for a, b in zip(texts, pairs, strict=True)]
        return Split(texts, pairs, np.array(labels, dtype=np.float32))

    return _task(TaskSpec("tinynumber", "regression", ("score",), "spearman", pair=True), split)


def _task(spec: TaskSpec, split: Any, train: int = 96) -> Task:
    sizes = {"train": train, **SPLIT_SIZES}
    return Task(spec, *(split(sizes[name], seed) for name, seed in SPLIT_SEEDS.items()))


TASKS = {
    "single": single_task,
    "pair": pair_task,
    "multilabel": multilabel_task,
    "regression": regression_task,
}

# Models


def tokenizer() -> PreTrainedTokenizerFast:
    """Make a WordPiece tokenizer with BERT's special tokens.

    The vocabulary is written, not trained: training breaks ties differently in every process.
    """
    words = [*GOOD, *BAD, *THINGS, "the", "a", "is", "was", "and"]
    letters = sorted(set("".join(words)) | set("0123456789"))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [
        *special,
        *letters,
        *(f"##{letter}" for letter in letters),
        *(word for word in words if len(word) > 1),
    ]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    inner = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def bert(
    layers: int = 2,
    hidden: int = 24,
    heads: int = 2,
    outputs: int = 2,
    vocabulary: int = 200,
    **settings: Any,
) -> BertForSequenceClassification:
    """Make a tiny BERT with random weights, whose logits differ from text to text."""
    defaults = {
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,
    }
    config = BertConfig(
        vocab_size=vocabulary,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_labels=outputs,
        **defaults | settings,
    )
    return BertForSequenceClassification(config)


def random_student(
    kind: str, spec: TaskSpec, *, seed: int = 7, lstm_std: float | None = 0.5
) -> PreTrainedModel:
    """Make a student with random weights, the same at every call.

    Args:
        kind: `bilstm`, `cross-attention` for a BiLSTM that has it, or any other word for a BERT.
        lstm_std: Standard deviation of a BiLSTM's weights; None keeps its own initialization.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind not in ("bilstm", "cross-attention"):
            model = bert(outputs=spec.outputs, initializer_range=0.3)
            model.config.update(label_config(spec))
            return model.eval()
        config = BiLstmModelConfig(
            vocab_size=200,
            embedding_dim=12,
            hidden_size=7,
            head_size=9,
            pair=spec.pair,
            cross_attention=kind == "cross-attention",
            **label_config(spec),
        )
        lstm = BiLstmForSequenceClassification(config)
        if lstm_std is not None:
            for parameter in lstm.parameters():
                torch.nn.init.normal_(parameter, std=lstm_std)
        return lstm.eval()


# Recipes


def write_teacher(folder: Path, *, layers: int = 2) -> None:
    """Write a teacher with random weights, and its tokenizer."""
    torch.manual_seed(0)
    pieces = tokenizer()
    bert(layers=layers, vocabulary=len(pieces)).save_pretrained(folder)
    pieces.save_pretrained(folder)


def write_data_and_teacher(folder: Path, *, train: int = 96, layers: int = 2) -> dict[str, Any]:
    """Write the data of `single_task` and a teacher with random weights.

    Returns:
        The document of a recipe that names both and has no student.
    """
    write_teacher(folder / "model", layers=layers)
    (folder / "data").mkdir()
    for split, seed in SPLIT_SEEDS.items():
        texts, labels = sentences({"train": train, **SPLIT_SIZES}[split], seed)
        table = pa.table({"text": list(texts), "label": labels.tolist()})
        pq.write_table(table, folder / "data" / f"{split}.parquet")
    return {
        "name": "r",
        "threads": 1,
        "data": {
            "source": str(folder / "data"),
            "validation": "validation",
            "test": "test",
            "overlap": "allow",
        },
        "teacher": {"model": str(folder / "model"), "max_length": 32},
    }


def tinybert_config(**settings: Any) -> dict[str, Any]:
    """Return the recipe section of a TinyBERT that trains in a second."""
    return {
        "kind": "tinybert",
        "start": "scratch",
        "layers": 1,
        "hidden": 24,
        "heads": 2,
        "intermediate": 48,
        "max_length": 32,
        "baseline": False,
        "fit": {"epochs": 1.0, "checks": 1, "learning_rate": 1e-3},
        **settings,
    }


def make_recipe(document: dict[str, Any], **settings: Any) -> Recipe:
    """Validate a recipe's document with some keys replaced."""
    return Recipe.model_validate(document | settings)


# Run folders

RUN_MAX_LENGTH = 48
"""Tokens that the models of `make_run` read."""

QUICK_QAT = {"steps": 6, "checks": 1, "batch_size": 16, "calibration_texts": 64}


def make_run(
    folder: Path,
    task: Task,
    kinds: tuple[str, ...] = ("bilstm",),
    teacher: PreTrainedModel | None = None,
    quantize: dict[str, object] | None = None,
    model: PreTrainedModel | None = None,
) -> RunDir:
    """Make the run folder that distillation would leave, without training.

    Args:
        quantize: More keys for the section `student.quantize`.
        model: The model of every student. Default: `random_student`.
    """
    from kdedge.io.model_files import hash_model
    from kdedge.teacher.finetune import load_teacher
    from kdedge.transfer.dataset import TransferBuilder
    from kdedge.transfer.texts import collect_texts

    # These students are untrained: only the mean squared error of logits can tell them apart.
    students = []
    for kind in kinds:
        section = {"kind": kind, "quantize": QUICK_QAT | (quantize or {})}
        students.append({**section, "objective": {"logits": "mse"}})
    document = {
        "name": "tiny",
        "data": {"source": "nowhere"},
        "teacher": {"model": "a-tiny-teacher"},
        "student": students,
    }
    run = RunDir.create(Recipe.model_validate(document), folder)
    teacher = teacher or random_student("tinybert", task.spec, seed=3, lstm_std=None)
    _save_stage(run.teacher, teacher, task)
    builder = TransferBuilder(
        run.recipe.transfer,
        load_teacher(run.teacher, task.spec, RUN_MAX_LENGTH),
        hash_model(run.teacher),
    )
    builder.build(collect_texts(task), run.transfer)
    for kind, student_dir in zip(kinds, run.students.values(), strict=True):
        student = model or random_student(kind, task.spec, seed=3, lstm_std=None)
        _save_stage(student_dir.student, student, task, teacher=hash_model(run.teacher))
    return run


def _save_stage(folder: Path, model: PreTrainedModel, task: Task, **inputs: str) -> None:
    from kdedge.nn.text_model import TextClassifier, save_measured
    from kdedge.run.stage import stage
    from kdedge.teacher.result import TeacherResult

    classifier = TextClassifier(model.eval(), tokenizer(), RUN_MAX_LENGTH)

    def make(part: Path) -> dict[str, Any]:
        measured = save_measured(classifier, task, part).to_json()
        result = TeacherResult(**measured, model="a-tiny-teacher", fine_tuned=False, seconds=0.0)
        return result.to_json()

    stage(folder, {"made": "here", **inputs}, make)


def record_again(folder: Path) -> None:
    """Record the files of a stage as they are now: a test changed them on purpose."""
    from kdedge.run.stage import STAGE_FILE
    from kdedge.run.stage_files import record_files

    document = json.loads((folder / STAGE_FILE).read_text())
    (folder / STAGE_FILE).unlink()
    document["files"] = record_files(folder)
    (folder / STAGE_FILE).write_text(json.dumps(document))


# Bundles

OPTIONAL_FILES = (AGREEMENT, EVALUATION, PRECISIONS["fp16"], PRECISIONS["portable"], SBOM)
BUNDLE_FILES = tuple(name for name in LAYOUT if name not in OPTIONAL_FILES)
"""Files of a bundle that `tiny_bundle` returns."""

BUNDLE_MAX_LENGTH = 24
"""Tokens that a tiny bundle reads."""


def tiny_bundle(kind: str = "bert", task: str = "single") -> Path:
    """Return a bundle of a `bert` or `bilstm` for one of `TASKS`.

    All tests share it. Copy it before you change anything.
    """
    return _pack_once(kind, task)


def copy_bundle(bundle: Path, folder: Path) -> Path:
    """Copy a bundle into `folder`, for a test to change."""
    return Path(shutil.copytree(bundle, folder / "bundle"))


def bundle_with_agreement(folder: Path) -> Path:
    """Copy a bundle and add an agreement table, by which a cascade answers half of all texts.

    Student and teacher agree on the more confident half of 200 validation texts.
    """
    from kdedge.runtime import Bundle, Classifier
    from kdedge.runtime.agreement import AgreementTable, usualness
    from kdedge.runtime.manifest import write_manifest

    copy = copy_bundle(tiny_bundle(), folder)
    classifier = Classifier.load(copy)
    texts = sentences(200, seed=5)[0]
    logits, predictions = classifier.predict_with_logits(texts)
    confidence = np.array([prediction.score for prediction in predictions])
    agrees = confidence >= np.median(confidence)
    table = AgreementTable(classifier.precision, confidence, usualness(logits), agrees)
    (copy / AGREEMENT).write_text(json.dumps(table.to_json()))
    write_manifest(copy, Bundle.open(tiny_bundle()).manifest)
    return copy


def both_files(**settings: Any) -> ExportOptions:
    """Return export options that pack the fp32 and the int8 file."""
    from kdedge.export.options import ExportOptions

    return ExportOptions(("fp32", "int8"), **settings)


def pack_bundle(
    made: ExportInput, task: Task, folder: Path, options: ExportOptions | None = None
) -> Path:
    """Write, check and pack a bundle as `kdedge export` does."""
    from kdedge.export.build import build_bundle
    from kdedge.export.options import TEACHER_OPTIONS

    folder.parent.mkdir(parents=True, exist_ok=True)
    build_bundle(made, task, folder, options or TEACHER_OPTIONS)
    return folder


def export_input(kind: str, task: Task) -> ExportInput:
    """Make an untrained student and the figures that training would have left."""
    from kdedge.export.pack import ExportInput

    scores = {
        "metric": task.spec.metric,
        "split_size": len(task.test),
        "teacher": 0.9375,
        "student": 0.875,
    }
    return ExportInput(
        random_student(kind, task.spec),
        tokenizer(),
        task.spec,
        BUNDLE_MAX_LENGTH,
        task.spec.name,
        scores,
        {"model": "a tiny teacher"},
    )


@cache
def _pack_once(kind: str, task_name: str) -> Path:
    task = TASKS[task_name]()
    folder = _bundles_folder() / f"{kind}-{task_name}"
    return pack_bundle(export_input(kind, task), task, folder)


@cache
def _bundles_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kdedge-bundles-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# Fake quantization

Batches = list[dict[str, torch.Tensor]]


def calibrated_bert(scheme: QuantScheme) -> tuple[nn.Module, nn.Module, Batches]:
    """Return a float BERT, its calibrated form, and 64 texts in batches of equal length."""
    from kdedge.export.calibrate import calibrate, unpadded_batches
    from kdedge.export.fake_model import fake_quantized

    from kdedge.nn.batching import PaddingCollator
    from kdedge.nn.tokenization import encode

    torch.manual_seed(3)
    pieces = tokenizer()
    model = bert(layers=2, hidden=32, heads=4, vocabulary=len(pieces), initializer_range=0.2).eval()
    texts, _ = sentences(64, 5)
    batches = unpadded_batches(PaddingCollator(0), encode(pieces, texts, None, 48))
    quantized = fake_quantized(model, scheme).eval()
    calibrate(quantized, model, batches)
    return model, quantized, batches


def single_text_batches(batches: Batches) -> list[dict[str, np.ndarray]]:
    """Split batches into single texts (1, T)."""
    singles = []
    for batch in batches:
        for i in range(len(batch["input_ids"])):
            singles.append({name: values[i : i + 1].numpy() for name, values in batch.items()})
    return singles
