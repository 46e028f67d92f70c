"""Settle the number of CPU threads of a run."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import transformers

from kdedge.recipe import Recipe, load_recipe
from kdedge.run.paths import RECIPE_FILE


def settle_threads(recipe: Recipe, runs: Path, threads: int | None) -> Recipe:
    """Return the recipe with its number of CPU threads, and set this process to it.

    The number decides the order in which sums are added, and so the weights. The first of these
    counts: `threads`, the recipe, the recipe saved in the run, the cores of this process.
    OMP_NUM_THREADS does not count.
    """
    count = threads or recipe.threads or _saved_threads(runs / recipe.name) or _cores()
    prepare_process(count)
    return recipe.model_copy(update={"threads": count})


def _saved_threads(run: Path) -> int | None:
    saved = run / RECIPE_FILE
    return load_recipe(saved).threads if saved.is_file() else None


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare_process(threads: int) -> None:
    """Set torch's CPU threads and silence transformers."""
    torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
