"""`kdedge.distill`: train students from a recipe, or from a model and texts in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack, cast

from kdedge.api.inputs import DistillInputs, check_names, write_inputs
from kdedge.api.process import restored_process
from kdedge.api.progress import progress_of
from kdedge.api.run import Run
from kdedge.distillation.seeds import distill_seeds
from kdedge.errors import UsageError
from kdedge.recipe import Recipe, load_recipe, with_values
from kdedge.run.progress import Progress
from kdedge.run.stage import StageContext
from kdedge.run.threads import settle_threads


def distill(
    recipe: str | Path | Recipe | None = None,
    *,
    runs: str | Path = "runs",
    overrides: Mapping[str, Any] | None = None,
    seeds: int = 1,
    threads: int | None = None,
    force: bool = False,
    progress: bool | Progress = True,
    **inputs: Unpack[DistillInputs],
) -> Run:
    """Train the students of a recipe, or of a model and texts in memory.

    Stages whose inputs have not changed are reused. An interrupted call continues if it is
    repeated. Objects in memory are first written to `runs/<name>/inputs/`, with a recipe that
    repeats the run from the command line.

    Args:
        recipe: Path of a recipe, or a `kdedge.Recipe`. Leave it out if you give objects.
        runs: The folder that holds one folder per run.
        overrides: Keys of the recipe to set, such as `{"student.fit.epochs": 1}`.
        seeds: Train the students with this many seeds.
        threads: CPU threads of training. Default: the recipe's, else as when the run began, else
            all cores.
        force: Replace stages whose inputs have changed; otherwise that is an error.
        progress: Whether to show progress, or an object that receives it.
        **inputs: Objects instead of a recipe: `teacher`, `tokenizer`, `train`, `validation`,
            `test`, `unlabelled`, `student`, `name`, `kind`, `labels` and `metric`.
            See `DistillInputs`.

    Returns:
        The run. With several seeds, the run of the first one; it knows the others.

    Raises:
        UsageError: If an argument, the recipe or the students are wrong.
        DataError: If texts or labels cannot be used; lists them.
        MachineError: If this machine lacks something, or the run is in use.
        CheckFailed: If a loss or a weight is not finite.
        IntegrityError: If a file of a finished stage was changed.
        Interrupted: If a signal arrives; the work is saved.

    Example:
        ```python
        run = kdedge.distill("configs/quickstart.toml", overrides={"seed": 3})

        run = kdedge.distill(
            teacher=model,
            tokenizer=tokenizer,
            train=(texts, labels),
            test=0.2,
            student=kdedge.BiLstm(hidden=150),
            name="reviews",
        )
        ```
    """
    check_names(inputs)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise UsageError("seeds is a number of at least 1", repr(seeds), "give seeds=3")
    runs = Path(runs)
    overrides = overrides or {}
    with restored_process():
        loaded = _load(recipe, inputs, runs, overrides, force=force)
        settled = settle_threads(loaded, runs, threads)
        stages = StageContext(force, progress_of(progress))
        return Run.of(distill_seeds(settled, runs, seeds, stages=stages))


def _load(
    recipe: str | Path | Recipe | None,
    inputs: DistillInputs,
    runs: Path,
    overrides: Mapping[str, Any],
    *,
    force: bool,
) -> Recipe:
    """Return the recipe, which is first written if the inputs are objects."""
    if recipe is None:
        return load_recipe(write_inputs(inputs, runs, overrides, force=force))
    if inputs:
        raise UsageError(
            "kdedge.distill takes a recipe or objects, not both",
            f"a recipe and {', '.join(inputs)}",
            "set keys of the recipe with overrides, or leave the recipe out",
        )
    if isinstance(recipe, Recipe):
        return with_values(recipe, dict(overrides)) if overrides else recipe
    if isinstance(recipe, str | Path):
        return load_recipe(recipe, overrides)
    kind = type(cast(object, recipe)).__name__
    raise UsageError(
        "a recipe is the path of a TOML file, or a kdedge.Recipe",
        f"a {kind}",
        'kdedge.distill("recipe.toml"), or name the objects: teacher=..., train=...',
    )
