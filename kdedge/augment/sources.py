"""Build the sources that a recipe names, each with the model or statistics it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.augment.filters import TextFilter
from kdedge.augment.generate import GenerateSource, prompt_kinds
from kdedge.augment.generator import Generator
from kdedge.augment.generator_stage import prepare_generator
from kdedge.augment.lines import task_lines
from kdedge.augment.pool import build_pool
from kdedge.augment.replace import Neighbours, ReplaceSource, load_masked_guesses
from kdedge.augment.rules import RuleSource
from kdedge.augment.source import TextSource
from kdedge.augment.word_classes import induce_classes
from kdedge.data.task import Task
from kdedge.io.model_files import hash_model
from kdedge.io.paths import resolve_model_path
from kdedge.recipe import AugmentConfig, Recipe, ReplaceConfig, TeacherConfig
from kdedge.run.stage import DEFAULT_STAGES, StageContext
from kdedge.teacher.finetune import Teacher, guesses_masked_words

SOURCE_KEYS = {"rules", "replace", "generate", "pool", "shard_size"}
"""Keys of [augment] that decide which texts the sources produce."""

TEXT_FILTER_KEYS = {"near", "held_out", "shortest", "longest", "perplexity"}
"""Keys of [augment.filters] that decide which of these texts are accepted."""


@dataclass(frozen=True)
class Sources:
    """The sources of one task, in the order in which they run.

    Attributes:
        inputs: Everything that decides the produced texts: the cache key of the stage.
        nll_range: Lowest and highest mean negative log-likelihood of a generated text, in
            nats per token; None if no source generates texts.
        clean: Cleaning steps for the texts of generator and pool.
    """

    sources: list[TextSource]
    inputs: dict[str, Any]
    recipe: AugmentConfig
    task: Task
    nll_range: tuple[float, float] | None = None
    clean: tuple[str, ...] = ()

    def text_filter(self) -> TextFilter:
        """Create the text filter that the recipe configures."""
        return TextFilter.for_task(self.recipe.filters, self.task, self.nll_range, self.clean)


def build_sources(
    recipe: Recipe,
    task: Task,
    teacher: Teacher,
    teacher_hash: str,
    generator_folder: Path,
    *,
    stages: StageContext = DEFAULT_STAGES,
) -> Sources:
    """Build the sources that `[augment]` names.

    Args:
        teacher: The rules use its mask token, word replacement uses its word embeddings.
        teacher_hash: Identifies the teacher in the cache key.
        generator_folder: Folder of the stage `generator/`.
    """
    augment = recipe.augment_in_use
    assert augment is not None
    sources: list[TextSource] = []
    inputs: dict[str, Any] = {
        "augment": augment.model_dump(mode="json", include=SOURCE_KEYS),
        "filters": augment.filters.model_dump(mode="json", include=TEXT_FILTER_KEYS),
        "data": task.content_hash(),
        "teacher": teacher_hash,
        "seed": recipe.seed,
    }
    nll_range = None
    # A mistake in the pool's file must show before the generator is trained.
    pool = build_pool(augment.pool, recipe.data, task) if augment.pool else None
    if augment.rules:
        classes = induce_classes((*task.train.texts, *(task.train.pairs or ())))
        mask = teacher.tokenizer.mask_token
        sources.append(RuleSource(augment.rules, task.train, classes, mask))
    if augment.replace:
        masked = masked_model(augment.replace, recipe.teacher)
        if masked is not None:
            inputs["masked language model"] = [_model_hash(*masked), teacher.max_length]
        sources.append(_replace_source(augment.replace, task, teacher, masked))
    if augment.generate:
        prompt_kinds(augment.generate, task)
        generator = prepare_generator(
            augment.generate, task, generator_folder, seed=recipe.seed, stages=stages
        )
        inputs["generator"] = hash_model(generator_folder)
        nll_range = typical_nll(generator, task, augment, recipe.seed)
        sources.append(GenerateSource(generator, augment.generate, task))
    if augment.pool and pool:
        sources.append(pool)
        inputs["pool"] = pool.content_hash()
    clean = recipe.data.clean_new
    if clean:
        inputs["clean"] = list(clean)
        inputs["known texts"] = "as they are and cleaned"
    return Sources(sources, inputs, augment, task, nll_range, clean)


def typical_nll(
    generator: Generator, task: Task, recipe: AugmentConfig, seed: int
) -> tuple[float, float]:
    """Return the range of mean negative log-likelihood of real texts, in nats per token.

    Its ends are the two quantiles of `filters.perplexity` over the validation split. If the lower
    quantile is 0, the range starts at 0.
    """
    assert recipe.generate is not None
    lines = task_lines(task.validation, task.spec, seed)
    mean_nlls = generator.mean_nll(generator.encode(lines, recipe.generate.max_length))
    low, high = recipe.filters.perplexity
    lowest = float(np.quantile(mean_nlls, low)) if low else 0.0
    return lowest, float(np.quantile(mean_nlls, high))


def masked_model(recipe: ReplaceConfig, teacher: TeacherConfig) -> tuple[str, str | None] | None:
    """Return name and revision of the masked language model; None: use only neighbours.

    By default it is the checkpoint that the teacher starts from, if that can predict words.
    """
    if recipe.model == "neighbours":
        return None
    if recipe.pretrained is not None:
        return recipe.pretrained, None
    if guesses_masked_words(teacher.model, teacher.revision):
        return teacher.model, teacher.revision
    return None


def _model_hash(name: str, revision: str | None) -> Any:
    """Return a hash of a model's files, or name and revision if it is not on this machine."""
    folder = resolve_model_path(name)
    return hash_model(folder) if folder else [name, revision]


def _replace_source(
    recipe: ReplaceConfig, task: Task, teacher: Teacher, masked: tuple[str, str | None] | None
) -> ReplaceSource:
    matrix = teacher.model.get_input_embeddings().weight.detach().float().cpu().numpy()
    neighbours = Neighbours(teacher.tokenizer, matrix, recipe.candidates)
    guesses = None
    if masked is not None:
        guesses = load_masked_guesses(*masked, recipe.candidates, teacher.max_length)
    return ReplaceSource(recipe, task.train, neighbours, guesses)
