"""Write a model, texts and students that are in memory as the inputs of a run.

runs/<name>/inputs/  recipe.toml  teacher/  train.jsonl  validation.jsonl  test.jsonl
                     unlabelled.jsonl

`kdedge distill runs/<name>/inputs/recipe.toml` is then the same run from the command line.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import tomli_w
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdedge.api.examples import FORMS, MemoryExamples, read_labelled, read_unlabelled
from kdedge.errors import UsageError
from kdedge.io.atomic import hash_file, remove, replace_dir, write_atomic
from kdedge.io.paths import PACKAGE, resolve_model_path
from kdedge.recipe import StudentBase, StudentConfig, set_keys, validated
from kdedge.recipe.augment import LARGEST_SIZE
from kdedge.run.layout import RunDir
from kdedge.run.paths import INPUTS_FOLDER, RECIPE_FILE
from kdedge.run.processes import on_main_process
from kdedge.runtime.spec import Kind
from kdedge.wording import nearest_or_known


class DistillInputs(TypedDict, total=False):
    """The keyword arguments of `kdedge.distill` that replace a recipe.

    Attributes:
        teacher: A transformers model, or a folder, package:NAME/FOLDER or hub id. A classifier
            with the task's number of labels is used as it is; an encoder is fine-tuned first.
        tokenizer: The fast tokenizer of a teacher that is a model.
        train: `(texts, labels)`, a `datasets.Dataset` or a DataFrame with the columns text,
            label and, for pairs, pair. A text of a pair task is a tuple of two strings.
        validation: The same, or the share of train on which checkpoints are chosen; default: 0.1.
        test: The same, or the share of train on which results are reported.
        unlabelled: More texts, which the teacher labels.
        student: `kdedge.TinyBert(...)` or `kdedge.BiLstm(...)`, or a dict from name to student.
        name: Name of the run and of its folder; default: my-run.
        kind: classification, multilabel or regression; default: classification.
        labels: Label names in the order of their indices; default: those of the data.
        metric: Metric of all scores; default: accuracy, micro_f1 or pearson, by kind.
    """

    teacher: Any
    tokenizer: Any
    train: Any
    validation: Any
    test: Any
    unlabelled: Any
    student: StudentConfig | Mapping[str, StudentConfig]
    name: str
    kind: Kind
    labels: list[str]
    metric: str


NAMES = tuple(DistillInputs.__annotations__)
REQUIRED = ("teacher", "train", "test", "student")
HINTS = {
    "teacher": "give a transformers model, a folder or a hub id",
    "train": f"give {FORMS}",
    "test": f"give {FORMS}; or a share of train, such as test=0.2",
    "student": "give kdedge.BiLstm(), kdedge.TinyBert(), or a dict from name to student",
}


@dataclass(frozen=True)
class _Parts:
    """Checked inputs: everything that goes into the folder.

    Attributes:
        model: The teacher if it is in memory, else None.
        splits: File name without ending -> examples.
    """

    document: dict[str, Any]
    model: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    splits: dict[str, MemoryExamples]


def check_names(inputs: Mapping[str, Any]) -> None:
    """Raise UsageError that names an argument that `kdedge.distill` does not have."""
    for name in inputs:
        if name not in NAMES:
            hint = nearest_or_known(name, [*NAMES, "recipe", "runs", "overrides"])
            raise UsageError("kdedge.distill has no such argument", name, hint)


def write_inputs(
    inputs: DistillInputs, runs: Path, overrides: Mapping[str, Any], *, force: bool
) -> Path:
    """Write the inputs of a run and return the path of its recipe.

    Args:
        inputs: The arguments of `kdedge.distill`.
        runs: The folder that holds one folder per run.
        overrides: Keys of the recipe to set.
        force: Replace other inputs, from which the run has already been made.

    Raises:
        UsageError: If an argument is missing or wrong, or the run was made from other inputs.
        DataError: If an example cannot be used.
    """
    _check_required(inputs)
    folder = (runs / _name(inputs) / INPUTS_FOLDER).absolute()
    parts = _checked_parts(inputs, folder)
    set_keys(parts.document, overrides)
    recipe = validated("kdedge.distill", parts.document)
    if recipe.name != folder.parent.name:
        raise UsageError(
            "the name of a run is an argument of kdedge.distill",
            f"overrides set it to {recipe.name!r}",
            f"kdedge.distill(name={recipe.name!r}, ...)",
        )
    with RunDir(folder.parent, recipe).locked():
        on_main_process(lambda: _write(parts, folder, force=force))
    return folder / RECIPE_FILE


def _check_required(inputs: DistillInputs) -> None:
    for name in REQUIRED:
        if inputs.get(name) is None:
            given = ", ".join(inputs) or "nothing"
            raise UsageError(
                f"kdedge.distill needs a recipe, or {', '.join(REQUIRED)}",
                f"{name} is missing; given: {given}",
                HINTS[name],
            )


def _name(inputs: DistillInputs) -> str:
    return inputs.get("name", "my-run")


def _checked_parts(inputs: DistillInputs, folder: Path) -> _Parts:
    """Check all inputs; nothing is written."""
    splits = {"train": read_labelled(inputs["train"], "train")}
    data: dict[str, Any] = {}
    for role, default in (("validation", 0.1), ("test", None)):
        examples = inputs.get(role, default)
        if isinstance(examples, int | float):
            data[role] = float(examples)
        else:
            splits[role] = read_labelled(examples, role)
    if inputs.get("unlabelled") is not None:
        splits["unlabelled"] = read_unlabelled(inputs["unlabelled"], "unlabelled")
        if not len(splits["unlabelled"]):
            raise UsageError("unlabelled has no texts", hint="add texts, or leave unlabelled out")
    has_pairs = _have_pairs(splits)
    if has_pairs:
        data["pair"] = "pair"
    for role in ("train", "validation", "test"):
        if role in splits:
            data[role] = str(folder / f"{role}.jsonl")
    model, tokenizer, teacher = _teacher(inputs, folder)
    students = _students(inputs["student"])
    document: dict[str, Any] = {
        "name": _name(inputs),
        "task": _task(inputs, splits["train"]),
        "data": data,
        "teacher": {"model": teacher},
        "student": students[0] if len(students) == 1 else students,
    }
    if "unlabelled" in splits:
        size = _pool_size(splits, data)
        pool = {"file": str(folder / "unlabelled.jsonl")}
        if has_pairs:
            pool["pair"] = "pair"
        document["augment"] = {"size": size, "pool": pool}
    return _Parts(document, model, tokenizer, splits)


def _have_pairs(splits: Mapping[str, MemoryExamples]) -> bool:
    """Return whether the examples are pairs. Raises UsageError if only some of them are."""
    paired = [role for role, examples in splits.items() if examples.pairs is not None]
    if paired and len(paired) < len(splits):
        single = [role for role in splits if role not in paired]
        raise UsageError(
            "all texts must be single, or all must be pairs",
            f"pairs in {', '.join(paired)}; single texts in {', '.join(single)}",
            "give a tuple of two texts everywhere, or nowhere",
        )
    return bool(paired)


def _task(inputs: DistillInputs, train: MemoryExamples) -> dict[str, Any]:
    kind = inputs.get("kind", "classification")
    labels = inputs.get("labels") or train.label_names
    task: dict[str, Any] = {"kind": kind}
    if labels is not None and kind != "regression":
        task["labels"] = list(labels)
    if inputs.get("metric") is not None:
        task["metric"] = inputs["metric"]
    return task


def _students(student: Any) -> list[dict[str, Any]]:
    """Return the student sections of the recipe, named by the keys of a dict."""
    named: dict[str | None, Any] = {None: student}
    if isinstance(student, Mapping):
        named = dict(student)
    documents = []
    for name, config in named.items():
        if not isinstance(config, StudentBase):
            raise UsageError(
                "student is no student of kdedge", f"a {type(config).__name__}", HINTS["student"]
            )
        document = {"kind": config.kind, **config.model_dump(mode="json", exclude_unset=True)}
        if name is not None:
            document["name"] = name
        documents.append(document)
    return documents


def _teacher(
    inputs: DistillInputs, folder: Path
) -> tuple[PreTrainedModel | None, PreTrainedTokenizerBase | None, str]:
    """Return model and tokenizer if they are in memory, and the teacher's name in the recipe."""
    teacher, tokenizer = inputs["teacher"], inputs.get("tokenizer")
    if isinstance(teacher, str | Path):
        if tokenizer is not None:
            raise UsageError(
                "a teacher that is a folder or hub id has its own tokenizer",
                str(teacher),
                "leave tokenizer out, or give the model itself",
            )
        return None, None, _model_name(str(teacher))
    if not isinstance(teacher, PreTrainedModel):
        hint = HINTS["teacher"]
        if hasattr(teacher, "merge_and_unload"):
            hint = "merge the adapter first: teacher=model.merge_and_unload()"
        raise UsageError("teacher is no transformers model", f"a {type(teacher).__name__}", hint)
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.is_fast:
        raise UsageError(
            "a teacher in memory needs its fast tokenizer",
            f"tokenizer is a {type(tokenizer).__name__}",
            "give tokenizer=AutoTokenizer.from_pretrained(...)",
        )
    return teacher, tokenizer, str(folder / "teacher")


def _model_name(name: str) -> str:
    """Return a folder as an absolute path, so that the recipe runs from any folder."""
    if name.startswith(PACKAGE):
        return name
    path = resolve_model_path(name)
    return name if path is None else str(path.absolute())


def _pool_size(splits: Mapping[str, MemoryExamples], data: Mapping[str, Any]) -> float:
    """Return the `augment.size` that uses every unlabelled text, if the filters accept it."""
    labelled = float(len(splits["train"]))
    for role in ("validation", "test"):
        if isinstance(data[role], float):
            labelled *= max(0.1, 1 - data[role])
    return min(LARGEST_SIZE, 0.1 + round(1.1 * len(splits["unlabelled"]) / max(1.0, labelled), 1))


def _write(parts: _Parts, folder: Path, *, force: bool) -> None:
    """Write all files next to the folder, then rename; equal files stay as they are."""
    part = folder.with_name(folder.name + ".part")
    remove(part)
    part.mkdir(parents=True)
    for role, examples in parts.splits.items():
        examples.write(part / f"{role}.jsonl")
    if parts.model is not None and parts.tokenizer is not None:
        _save_teacher(parts.model, parts.tokenizer, part / "teacher")
    write_atomic(part / RECIPE_FILE, tomli_w.dumps(parts.document))
    changed = _changed_files(part, folder)
    if changed and not force and (folder.parent / "teacher" / "stage.json").is_file():
        remove(part)
        raise UsageError(
            f"the run {folder.parent} was made from other inputs",
            f"different now: {', '.join(changed)}",
            "give the run another name, or force=True to make it again",
        )
    replace_dir(part, folder)


def _save_teacher(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save model and tokenizer; the files do not depend on how the tokenizer was used before."""
    model.save_pretrained(folder)
    unused = copy.deepcopy(tokenizer)
    unused.backend_tokenizer.no_padding()
    unused.backend_tokenizer.no_truncation()
    unused.save_pretrained(folder)


def _changed_files(part: Path, folder: Path) -> list[str]:
    """List the data and teacher files that differ from those of an older call."""
    if not folder.exists():
        return []
    new, old = _hashes(part), _hashes(folder)
    return sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))


def _hashes(folder: Path) -> dict[str, str]:
    """Return path -> SHA-256 of every file except the recipe, which the stages compare."""
    hashes = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != RECIPE_FILE:
            hashes[name] = hash_file(path)
    return hashes
