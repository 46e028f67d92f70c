"""Settle the number of CPU threads of a run."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import transformers

from kdedge.recipe import Recipe, load_recipe


def settle_threads(recipe: Recipe, runs: Path, threads: int | None) -> Recipe:
    """The recipe with its number of CPU threads settled, and this process set up for it.

    The number decides in which order sums are added, hence the weights: it is the one asked for, else the recipe's, else the one
    that the run began with, else the cores this process may use; never what OMP_NUM_THREADS happens to be.
    """
    begun = runs / recipe.name / "recipe.toml"
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    settled = (
        threads
        or recipe.threads
        or (load_recipe(begun).threads if begun.is_file() else None)
        or cores
    )
    prepare_process(settled)
    return recipe.model_copy(update={"threads": settled})


def prepare_process(threads: int) -> None:
    """Set torch's CPU threads and keep transformers from talking."""
    torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
