"""Choose and set the number of CPU threads of a run."""

from __future__ import annotations

from pathlib import Path

from kdedge.recipe import Recipe, load_recipe
from kdedge.run.paths import RECIPE_FILE
from kdedge.run.processes import available_cores


def settle_threads(recipe: Recipe, runs: Path, threads: int | None) -> Recipe:
    """Return the recipe with its number of CPU threads filled in, and apply the number."""
    recipe = choose_threads(recipe, runs, threads)
    prepare_process(recipe.threads or 1)
    return recipe


def choose_threads(recipe: Recipe, runs: Path, threads: int | None) -> Recipe:
    """Return the recipe with its number of CPU threads filled in, without importing torch.

    The number affects the order of summation, and so the weights. It is the first of these that
    is known: `threads`, the recipe, the recipe saved in the run, the cores of this process.
    OMP_NUM_THREADS is ignored.
    """
    count = threads or recipe.threads or _saved_threads(runs / recipe.name) or available_cores()
    return recipe.model_copy(update={"threads": count})


def _saved_threads(run: Path) -> int | None:
    saved = run / RECIPE_FILE
    return load_recipe(saved).threads if saved.is_file() else None


def prepare_process(threads: int) -> None:
    """Set torch's CPU threads and silence transformers."""
    import torch

    torch.set_num_threads(threads)
    silence_transformers()


def silence_transformers() -> None:
    """Turn off transformers' messages and progress bars while loading checkpoints."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
