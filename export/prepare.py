"""What becomes of a student before its graphs are written: a smaller vocabulary, and the numbers of its int8 file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kdedge.export.pack import Ingredients
from kdedge.export.parity import compare
from kdedge.export.qat import CALIBRATED_FILE, WEIGHTS_FILE, Lesson, load_tuned, quantize_aware_tune
from kdedge.export.scheme import QuantScheme
from kdedge.export.variants import lost

from kdedge.data.task import Task
from kdedge.errors import GateFailed, KdedgeError
from kdedge.io.atomic import hash_files, remove
from kdedge.nn.text_model import TextModel, score_of
from kdedge.recipe import Quantize
from kdedge.run.layout import Run
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import read_stage, stage
from kdedge.students.vocabulary import CHOSEN_BY, trim
from kdedge.transfer.dataset import read_transfer_set


def trimmed(
    run: Run, task: Task, recipe: Quantize, made: Ingredients, *, progress: Progress = SILENT
) -> Ingredients:
    """With a vocabulary of `recipe.trim_vocab` pieces, chosen by the written texts of the transfer set.

    Raises GateFailed where the student then loses more than `recipe.largest_drop` on the select split.
    """
    if not recipe.trim_vocab:
        return made
    texts, before = (
        read_transfer_set(run.transfer).texts,
        TextModel(made.model, made.tokenizer, made.max_length),
    )
    after = trim(before, texts.written, recipe.trim_vocab, texts.made)
    figures: dict[str, dict[str, float]] = {
        "pieces": {"before": len(before.tokenizer), "after": len(after.tokenizer)}
    }
    figures |= {name: _apart(before, after, task, name) for name in ("select", "report")}
    told = figures["report"]
    progress.say(
        f"{made.name}: {len(after.tokenizer):,} of {len(before.tokenizer):,} pieces kept: {told['before']:.4f} became {told['after']:.4f} "
        f"{task.spec.metric}, {100 * told['agreement']:.2f} % same answers"
    )
    if reason := lost(
        figures["select"]["before"],
        figures["select"]["after"],
        len(task.select),
        recipe.largest_drop,
    ):
        raise GateFailed(
            "the student needs more of its vocabulary",
            reason,
            "set student.vocabulary and distill again: it learns with fewer pieces; or keep more, or raise student.quantize.largest_drop",
        )
    return replace(
        made, model=after.model.eval(), tokenizer=after.tokenizer, parity={"vocabulary": figures}
    )


def _apart(before: TextModel, after: TextModel, task: Task, name: str) -> dict[str, float]:
    """Scores of both on a split, read whole by each in its own pieces, and the share of equal answers."""
    split = getattr(task, name)
    old, new = (student.annotate(split.texts, split.pairs) for student in (before, after))
    return {
        "before": score_of(task.spec, old, split),
        "after": score_of(task.spec, new, split),
        "agreement": compare(old, new, task.spec.kind).agreement,
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


def tuned(
    run: Run,
    name: str,
    task: Task,
    recipe: Quantize,
    scheme: QuantScheme,
    made: Ingredients,
    *,
    force: bool = False,
    progress: Progress = SILENT,
) -> Ingredients:
    """With the fake-quantized student of the stage `student-int8/`; force: made anew."""
    folder, student = (
        run.homes[name] / "student-int8",
        TextModel(made.model, made.tokenizer, made.max_length),
    )
    inputs = {
        "weights": made.teacher["weights"],
        "scheme": scheme.to_json(),
        "quantize": recipe.model_dump(mode="json", exclude={"largest_drop"}),
    }
    inputs |= {"pieces": CHOSEN_BY} if recipe.trim_vocab else {}
    objective = next(
        one.objective for one in run.recipe.student if run.recipe.student_name(one) == name
    )
    inputs |= (
        {"logits": [objective.logits, objective.temperature]} if objective.logits != "mse" else {}
    )
    inputs |= {
        "transfer": read_stage(run.transfer)["inputs"],
        "select": task.select.content_hash(),
        "seed": run.recipe.seed,
    }

    def make(part: Any) -> dict[str, Any]:
        lesson = Lesson(task, read_transfer_set(run.transfer), recipe, objective, run.recipe.seed)
        figures = quantize_aware_tune(student, scheme, lesson, part, progress=progress)
        return figures | {"files": hash_files(part, FILES)}

    if force or not _whole(folder):
        remove(folder)
    # A folder of another choice gives way: it costs minutes, and `kdedge export` says what it was asked for.
    figures = stage(folder, inputs, make, force=True, progress=progress)
    made.model.eval()
    final, calibrated = (
        load_tuned(made.model, scheme, folder, figures, file)
        for file in (WEIGHTS_FILE, CALIBRATED_FILE)
    )
    return replace(made, quantized=final, calibrated=calibrated, tuning=figures)
