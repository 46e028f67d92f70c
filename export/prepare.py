"""Prepares a student for export: a smaller vocabulary, and its int8 arithmetic."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kdedge.export.figures import SplitFigures, VocabularyFigures
from kdedge.export.pack import ExportInput
from kdedge.export.parity import compare_logits
from kdedge.export.qat import (
    CALIBRATED_FILE,
    WEIGHTS_FILE,
    QatResult,
    QuantizedStudent,
    quantize_aware_tune,
)
from kdedge.export.qat_training import QatData
from kdedge.export.scheme import QuantScheme
from kdedge.export.variants import accuracy_loss_reason
from transformers import PreTrainedTokenizerFast

from kdedge.data.task import Split, Task
from kdedge.errors import CheckFailed, KdedgeError
from kdedge.io.atomic import hash_files, remove
from kdedge.nn.text_model import TextClassifier, score_of
from kdedge.nn.tokenization import load_tokenizer
from kdedge.nn.training_stage import training_stage
from kdedge.recipe import QuantizeConfig, StudentConfig
from kdedge.run.layout import RunDir
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_result, read_stage
from kdedge.runtime.spec import TaskSpec
from kdedge.students.vocabulary import trim
from kdedge.transfer.dataset import TransferSet, read_transfer_set

FILES = (WEIGHTS_FILE, CALIBRATED_FILE)


def student_config(run: RunDir, name: str) -> StudentConfig:
    """Return the recipe's section of a student."""
    return next(student for student in run.recipe.student if student.key == name)


def apply_vocab_trim(
    run: RunDir,
    task: Task,
    recipe: QuantizeConfig,
    source: ExportInput,
    *,
    progress: Progress = SILENT,
) -> ExportInput:
    """Reduce the vocabulary to the `trim_vocab` pieces that the transfer set uses most.

    Texts made by augmentation do not choose pieces.

    Raises:
        CheckFailed: If the student loses more than `largest_drop` on the validation split.
    """
    if not recipe.trim_vocab:
        return source
    texts = read_transfer_set(run.transfer).texts
    before = TextClassifier(source.model, source.tokenizer, source.max_length)
    after = trim(before, texts.written, recipe.trim_vocab, texts.made)
    figures = VocabularyFigures(
        {"before": len(before.tokenizer), "after": len(after.tokenizer)},
        _compare_on(task.validation, before, after, task.spec),
        _compare_on(task.test, before, after, task.spec),
    )
    progress.say(
        f"{source.name}: vocabulary reduced from {len(before.tokenizer):,} to "
        f"{len(after.tokenizer):,} pieces; {task.spec.metric} changed from "
        f"{figures.test.before:.4f} to {figures.test.after:.4f}, "
        f"{100 * figures.test.agreement:.2f} % equal predictions"
    )
    validation = figures.validation
    reason = accuracy_loss_reason(
        validation.before, validation.after, len(task.validation), recipe.largest_drop
    )
    if reason:
        raise CheckFailed(
            "the student needs more of its vocabulary",
            reason,
            "set student.vocabulary and distill again, so that it learns with fewer pieces; or "
            "keep more pieces; or set a higher student.quantize.largest_drop in the recipe, and "
            "run `kdedge distill` with it first",
        )
    return replace(source, model=after.model.eval(), tokenizer=after.tokenizer, vocabulary=figures)


def _compare_on(
    split: Split, before: TextClassifier, after: TextClassifier, spec: TaskSpec
) -> SplitFigures:
    old = before.predict_logits(split.texts, split.pairs)
    new = after.predict_logits(split.texts, split.pairs)
    return SplitFigures(
        score_of(spec, old, split),
        score_of(spec, new, split),
        compare_logits(old, new, spec).agreement,
    )


def transfer_set_of(run: RunDir, tokenizer: PreTrainedTokenizerFast) -> TransferSet:
    """Read the transfer set of a run as a student with the tokenizer learned it.

    Texts from rules are stored with the teacher's mask token.
    """
    transfer = read_transfer_set(run.transfer)
    texts = transfer.texts.replace_mask_token(load_tokenizer(run.teacher), tokenizer)
    return replace(transfer, texts=texts)


@dataclass(frozen=True)
class QatStageResult:
    """What the stage `student-int8/` made.

    Attributes:
        figures: Figures of calibration and tuning.
        files: Hash of the files that the stage wrote.
    """

    figures: QatResult
    files: str

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> QatStageResult:
        return cls(QatResult(**document["figures"]), document["files"])


def apply_qat(
    run: RunDir,
    name: str,
    task: Task,
    recipe: QuantizeConfig,
    scheme: QuantScheme,
    source: ExportInput,
    *,
    stages: StageContext = DEFAULT_STAGES,
) -> QuantizedStudent:
    """Return the quantized student of the stage `student-int8/`, which is made if necessary."""
    folder = run.students[name].int8
    objective = student_config(run, name).objective
    inputs = {
        "weights": source.sources["weights"],
        "scheme": scheme.to_json(),
        "quantize": recipe.model_dump(mode="json", exclude={"largest_drop"}),
        "logits": [objective.logits, objective.temperature],
        "transfer": read_stage(run.transfer).inputs,
        "validation": task.validation.content_hash(),
        "seed": run.recipe.seed,
    }

    def make(part: Path) -> dict[str, Any]:
        student = TextClassifier(source.model, source.tokenizer, source.max_length)
        transfer = transfer_set_of(run, source.tokenizer)
        data = QatData(task, transfer, recipe, objective, run.recipe.seed)
        figures = quantize_aware_tune(student, scheme, data, part, progress=stages.progress)
        return asdict(QatStageResult(figures, hash_files(part, FILES)))

    if stages.force or not _is_intact(folder):
        remove(folder)
    # The stage is replaced if its inputs changed: `kdedge export` reports its own options.
    document = training_stage(folder, inputs, make, replace(stages, force=True))
    figures = QatStageResult.from_json(document).figures
    source.model.eval()
    return QuantizedStudent.load(source.model, scheme, folder, figures)


def _is_intact(folder: Path) -> bool:
    """Whether the stage exists with the files that were written."""
    try:
        return read_result(folder, QatStageResult).files == hash_files(folder, FILES)
    except KdedgeError:
        return False
