"""What becomes of a student before its graphs are written: a smaller vocabulary, and the numbers of its int8 file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kdedge.export.pack import ExportInput
from kdedge.export.parity import compare_logits
from kdedge.export.qat import (
    CALIBRATED_FILE,
    WEIGHTS_FILE,
    QatData,
    load_tuned,
    quantize_aware_tune,
)
from kdedge.export.scheme import QuantScheme
from kdedge.export.variants import accuracy_loss_reason

from kdedge.data.task import Task
from kdedge.errors import CheckFailed, KdedgeError
from kdedge.io.atomic import hash_files, remove
from kdedge.nn.text_model import TextClassifier, score_of
from kdedge.recipe import QuantizeConfig
from kdedge.run.layout import RunDir
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import DEFAULT_STAGES, StageContext, read_stage, stage
from kdedge.students.vocabulary import trim
from kdedge.transfer.dataset import read_transfer_set


def apply_vocab_trim(
    run: RunDir,
    task: Task,
    recipe: QuantizeConfig,
    made: ExportInput,
    *,
    progress: Progress = SILENT,
) -> ExportInput:
    """With a vocabulary of `recipe.trim_vocab` pieces, chosen by the written texts of the transfer set.

    Raises GateFailed where the student then loses more than `recipe.largest_drop` on the validation split.
    """
    if not recipe.trim_vocab:
        return made
    texts, before = (
        read_transfer_set(run.transfer).texts,
        TextClassifier(made.model, made.tokenizer, made.max_length),
    )
    after = trim(before, texts.written, recipe.trim_vocab, texts.augmented)
    figures: dict[str, dict[str, float]] = {
        "pieces": {"before": len(before.tokenizer), "after": len(after.tokenizer)}
    }
    figures |= {name: _apart(before, after, task, name) for name in ("validation", "test")}
    told = figures["test"]
    progress.say(
        f"{made.name}: {len(after.tokenizer):,} of {len(before.tokenizer):,} pieces kept: {told['before']:.4f} became {told['after']:.4f} "
        f"{task.spec.metric}, {100 * told['agreement']:.2f} % same answers"
    )
    if reason := accuracy_loss_reason(
        figures["validation"]["before"],
        figures["validation"]["after"],
        len(task.validation),
        recipe.largest_drop,
    ):
        raise CheckFailed(
            "the student needs more of its vocabulary",
            reason,
            "set student.vocabulary and distill again: it learns with fewer pieces; or keep more, or raise student.quantize.largest_drop",
        )
    return replace(
        made, model=after.model.eval(), tokenizer=after.tokenizer, parity={"vocabulary": figures}
    )


def _apart(
    before: TextClassifier, after: TextClassifier, task: Task, name: str
) -> dict[str, float]:
    """Scores of both on a split, read whole by each in its own pieces, and the share of equal answers."""
    split = getattr(task, name)
    old, new = (student.predict_logits(split.texts, split.pairs) for student in (before, after))
    return {
        "before": score_of(task.spec, old, split),
        "after": score_of(task.spec, new, split),
        "agreement": compare_logits(old, new, task.spec.kind).agreement,
    }


FILES = (WEIGHTS_FILE, CALIBRATED_FILE)


def _whole(folder: Path) -> bool:
    """Whether the stage's files are those that were written; there may be none yet."""
    try:
        result = read_stage(folder)["result"]
        return bool(
            result["files"] == hash_files(folder, FILES)
            and {"weights", "float_layers"} <= result.keys()
        )
    except (KdedgeError, KeyError):
        return False


def apply_qat(
    run: RunDir,
    name: str,
    task: Task,
    recipe: QuantizeConfig,
    scheme: QuantScheme,
    made: ExportInput,
    *,
    stages: StageContext = DEFAULT_STAGES,
) -> ExportInput:
    """With the fake-quantized student of the stage `student-int8/`; force: made anew."""
    folder, student = (
        run.student_dirs[name] / "student-int8",
        TextClassifier(made.model, made.tokenizer, made.max_length),
    )
    inputs = {
        "weights": made.teacher["weights"],
        "scheme": scheme.to_json(),
        "quantize": recipe.model_dump(mode="json", exclude={"largest_drop"}),
    }
    objective = next(
        one.objective for one in run.recipe.student if run.recipe.student_name(one) == name
    )
    inputs |= (
        {"logits": [objective.logits, objective.temperature]} if objective.logits != "mse" else {}
    )
    inputs |= {
        "transfer": read_stage(run.transfer)["inputs"],
        "validation": task.validation.content_hash(),
        "seed": run.recipe.seed,
    }

    def make(part: Any) -> dict[str, Any]:
        context = QatData(task, read_transfer_set(run.transfer), recipe, objective, run.recipe.seed)
        figures = quantize_aware_tune(student, scheme, context, part, progress=stages.progress)
        return figures | {"files": hash_files(part, FILES)}

    if stages.force or not _whole(folder):
        remove(folder)
    # A folder of another choice gives way: it costs minutes, and `kdedge export` says what it was asked for.
    figures = stage(folder, inputs, make, stages=replace(stages, force=True))
    made.model.eval()
    final, calibrated = (
        load_tuned(made.model, scheme, folder, figures, file)
        for file in (WEIGHTS_FILE, CALIBRATED_FILE)
    )
    return replace(made, quantized=final, calibrated=calibrated, tuning=figures)
