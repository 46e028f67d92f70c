"""Settle the number of CPU threads of a run."""

from __future__ import annotations

from pathlib import Path

from kdedge.recipe import Recipe, load_recipe
from kdedge.run.paths import RECIPE_FILE
from kdedge.run.processes import available_cores


def settle_threads(recipe: Recipe, runs: Path, threads: int | None) -> Recipe:
    """Return the recipe with its number of CPU threads, and set this process to it."""
    recipe = choose_threads(recipe, runs, threads)
    prepare_process(recipe.threads or 1)
    return recipe


def choose_threads(recipe: Recipe, runs: Path, threads: int | None) -> Recipe:
    """Return the recipe with its number of CPU threads, without importing torch.

    The number decides the order in which sums are added, and so the weights. The first of these
    counts: `threads`, the recipe, the recipe saved in the run, the cores of this process.
    OMP_NUM_THREADS does not count.
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
    """Turn off the messages and progress bars for every checkpoint that is loaded."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
