"""`kdedge check RECIPE`: check a recipe and its data without training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from kdedge.cli.console import (
    ConsoleProgress,
    fold,
    make_table,
    print_json,
    print_message,
    results,
)
from kdedge.cli.options import RecipeArguments, json_option, read_data, recipe_options
from kdedge.errors import MachineError

if TYPE_CHECKING:
    from rich.table import Table

    from kdedge.data.task import Split, Task
    from kdedge.recipe import Recipe
    from kdedge.runtime.spec import TaskSpec

SHOWN_LABELS = 20


@click.command()
@recipe_options
@json_option
def check(arguments: RecipeArguments, as_json: bool) -> None:
    """Check RECIPE, its data, and the models of teacher and students, without training.

    Lists every fault of the recipe with its key, and the first ten faults of each file with
    their lines. Checks whether each student fits its start, the task and its loss. Prints how many
    examples of every label each split has.

    \b
    Example: kdedge check configs/quickstart.toml
    """
    from kdedge.distillation.early_checks import check_before_training
    from kdedge.evaluation.sanity import split_warnings

    recipe = arguments.load()
    task = read_data(recipe, ConsoleProgress())
    models = _models(recipe)
    check_before_training(recipe, task)
    results().print(_splits_table(task))
    results().print(_overlaps_table(task))
    for model, place in models.items():
        click.echo(fold(f"{model}: {place}", indent=2))
    for warning in split_warnings(task):
        print_message(fold(f"warning: {warning}", indent=2))
    click.echo(fold(f"{arguments.recipe}: the recipe and its data have no faults", indent=2))
    if as_json:
        print_json(_document(recipe, task, models))


def _models(recipe: Recipe) -> dict[str, str]:
    """Say where every model of the recipe is.

    Raises:
        MachineError: If the package of a model is not installed, or a model of the hub is neither
            in this machine's cache nor to be had.
        UsageError: If a folder has no config.json.
    """
    from kdedge.augment.generator import split_model_name
    from kdedge.io.paths import require_model_folder, resolve_model_path

    models = {}
    names = {f"teacher {recipe.teacher.model}": recipe.teacher.model}
    augment = recipe.augment_in_use
    if augment and augment.replace and augment.replace.pretrained is not None:
        names[f"augment.replace {augment.replace.pretrained}"] = augment.replace.pretrained
    if augment and augment.generate and augment.generate.pretrained is not None:
        names[f"augment.generate {augment.generate.pretrained}"] = augment.generate.pretrained
    for student in recipe.student:
        for model in student.pretrained:
            names[f"start of {student.key} {model}"] = model
    for title, name in names.items():
        folder_name, gguf_file = split_model_name(name)
        folder = resolve_model_path(folder_name)
        if folder is None:
            models[title] = _hub_place(name)
        elif gguf_file:
            models[title] = str(folder / gguf_file)
        else:
            require_model_folder(folder)
            models[title] = str(folder)
    return models


def _hub_place(name: str) -> str:
    """Say where a model of the hub is. Raises MachineError if it cannot be loaded here."""
    from kdedge.io.hub import BRING_HINT, OFFLINE, use_cache_if_unreachable

    use_cache_if_unreachable()
    # Imported here because it reads the environment variable when it is imported.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        is_cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        raise MachineError("there is no such model", name, BRING_HINT) from None
    if is_cached:
        return "in this machine's cache of the Hugging Face hub"
    if OFFLINE in os.environ:
        raise MachineError(
            "a model of the recipe is not here, and the Hugging Face hub cannot be reached",
            name,
            BRING_HINT,
        )
    return "on the Hugging Face hub"


def _splits_table(task: Task) -> Table:
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    table = make_table(f"{task.spec.name}: examples", ["label", *splits], left=("label",))
    counts = {name: _label_counts(task.spec, split) for name, split in splits.items()}
    for label in list(counts["train"])[:SHOWN_LABELS]:
        table.add_row(label, *(f"{counts[name][label]:,}" for name in splits))
    if len(counts["train"]) > SHOWN_LABELS:
        table.add_row(f"{len(counts['train']) - SHOWN_LABELS} more labels", "", "", "")
    table.add_row("all", *(f"{len(split):,}" for split in splits.values()))
    return table


def _overlaps_table(task: Task) -> Table:
    """Return how many texts the splits shared when they were read."""
    columns = ["splits", "equal texts", "copies apart from punctuation", "similar texts"]
    table = make_table("texts in two splits", columns, left=("splits",))
    for overlap in task.overlaps:
        counts = [overlap.equal, overlap.copies, overlap.similar]
        table.add_row(f"{overlap.split}, {overlap.other}", *(f"{count:,}" for count in counts))
    return table


def _label_counts(spec: TaskSpec, split: Split) -> dict[str, int]:
    if spec.kind == "regression":
        return {}
    if spec.kind == "multilabel":
        return {name: int(split.labels[:, i].sum()) for i, name in enumerate(spec.labels)}
    return {name: int((split.labels == i).sum()) for i, name in enumerate(spec.labels)}


def _document(recipe: Recipe, task: Task, models: dict[str, str]) -> dict[str, Any]:
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    sizes = {name: len(split) for name, split in splits.items()}
    labels = {name: _label_counts(task.spec, split) for name, split in splits.items()}
    return {
        "recipe": recipe.name,
        "kind": task.spec.kind,
        "metric": task.spec.metric,
        "splits": sizes,
        "labels": labels,
        "notes": list(task.notes),
        "overlaps": task.overlaps_json(),
        "models": models,
    }
