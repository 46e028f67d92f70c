"""From a recipe to its sources: each with the model or the statistics that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from kdedge.augment.filters import TextFilter
from kdedge.augment.generate import GenerateSource, prompt_kinds
from kdedge.augment.generator import Generator, lines_of, prepare_generator, token_lines
from kdedge.augment.pool import read_pool
from kdedge.augment.replace import MaskedGuesses, Neighbours, ReplaceSource
from kdedge.augment.rules import RuleSource
from kdedge.augment.source import Source
from kdedge.augment.word_classes import induce_classes
from kdedge.data.task import Task
from kdedge.errors import MachineError, UsageError, first_line
from kdedge.io.atomic import hash_files
from kdedge.io.paths import resolve_model_path
from kdedge.nn.device import this_device
from kdedge.nn.tokenization import load_tokenizer
from kdedge.recipe import AugmentConfig, FilterConfig, Recipe, ReplaceConfig, TeacherConfig
from kdedge.run.stage import DEFAULT_STAGES, WEIGHTS, StageContext, read_stage
from kdedge.teacher.finetune import Teacher, guesses_masked_words
from kdedge.transfer.texts import TransferTexts

BEFORE_LABELLING = {"rules", "replace", "generate", "pool", "shard_size"}
"""Keys of [augment] that decide which texts are made; those of its filters that decide it are in `TEXT_FILTERS`."""
TEXT_FILTERS = {"near", "held_out", "shortest", "longest", "perplexity"}


@dataclass(frozen=True)
class Sources:
    """All that makes texts for one task: sources in order, and the inputs that decide their texts.

    perplexity: lowest and highest mean surprise that generated text may have, in nats per token.
    """

    sources: list[Source]
    inputs: dict[str, Any]
    filters: FilterConfig
    task: Task
    perplexity: tuple[float, float] | None

    def sieve(self, known: TransferTexts | None = None) -> TextFilter:
        """The filters, before any text was made but the `known` ones."""
        sieve = TextFilter.of(self.filters, self.task, self.perplexity)
        if known is not None:
            sieve.know(known.texts, known.pairs)
        return sieve


def build_sources(
    recipe: Recipe,
    task: Task,
    teacher: Teacher,
    teacher_hash: str,
    folder: Path,
    *,
    stages: StageContext = DEFAULT_STAGES,
) -> Sources:
    """The sources that `[augment]` names; the generator is the stage `generator/` in `folder`."""
    augment = recipe.augment
    assert augment is not None
    sources: list[Source] = []
    inputs: dict[str, Any] = {
        "augment": augment.model_dump(mode="json", include=BEFORE_LABELLING),
        "filters": augment.filters.model_dump(mode="json", include=TEXT_FILTERS),
        "data": task.content_hash(),
        "teacher": teacher_hash,
        "seed": recipe.seed,
    }
    pool = read_pool(augment.pool, recipe.data) if augment.pool else None
    if augment.rules:
        sources.append(
            RuleSource(
                augment.rules,
                task.train,
                induce_classes((*task.train.texts, *(task.train.pairs or ()))),
                teacher.tokenizer.mask_token,
            )
        )
    if augment.replace:
        masked = masked_model(augment.replace, recipe.teacher[0])
        sources.append(_replacing(augment.replace, task, teacher, *(masked or (None,))))
        if masked:
            inputs["masked language model"] = (
                hash_files(place, WEIGHTS) if (place := resolve_model_path(masked[0])) else masked
            )
    surprise = None
    if augment.generate:
        prompt_kinds(augment.generate, task)
        generator = prepare_generator(
            augment.generate,
            task,
            folder / "generator",
            seed=recipe.seed,
            stages=stages,
        )
        inputs["generator"] = hash_files(folder / "generator", WEIGHTS)
        surprise = typical_nll(generator, task, augment, recipe.seed)
        sources.append(GenerateSource(generator, augment.generate, task))
    if augment.pool and pool:
        sources.append(pool)
        inputs["pool"] = hash_files(Path(augment.pool.file).parent, (Path(augment.pool.file).name,))
    return Sources(sources, inputs, augment.filters, task, surprise)


def typical_nll(
    generator: Generator, task: Task, recipe: AugmentConfig, seed: int
) -> tuple[float, float]:
    """The surprises at the filters' two quantiles of real texts, those of the validation split, in nats per token; from the 0th on nothing is too low."""
    assert recipe.generate is not None
    real = generator.surprise(
        token_lines(
            generator, lines_of(task.validation, task.spec, seed), recipe.generate.max_length
        )
    )
    low, high = recipe.filters.perplexity
    return float(np.quantile(real, low)) if low else 0.0, float(np.quantile(real, high))


def transfer_texts_of(folder: Path) -> dict[str, Any]:
    """Counts and speeds of the stage `augment/`, by source."""
    counts: dict[str, Any] = read_stage(folder)["result"]["sources"]
    return counts


def rounds_made(shared: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """What every round of every source made, of a run whose texts lie in `shared`: name -> counts."""
    folders = [
        shared / "augment",
        *(shared / f"augment-{number}" for number in range(2, rounds + 1)),
    ]
    return {
        origin + (f", round {i + 1}" if i else ""): counts
        for i, folder in enumerate(folders)
        if folder.exists()
        for origin, counts in transfer_texts_of(folder).items()
    }


def masked_model(recipe: ReplaceConfig, teacher: TeacherConfig) -> tuple[str, str | None] | None:
    """Name and revision of what guesses masked words: the model that is named, or the one the teacher begins from where its checkpoint can."""
    if recipe.model is None:
        return (
            (teacher.model, teacher.revision)
            if guesses_masked_words(teacher.model, teacher.revision)
            else None
        )
    return None if recipe.model == "neighbours" else (recipe.model, None)


def _replacing(
    recipe: ReplaceConfig,
    task: Task,
    teacher: Teacher,
    name: str | None = None,
    revision: str | None = None,
) -> ReplaceSource:
    matrix = teacher.model.get_input_embeddings().weight.detach().float().cpu().numpy()
    neighbours = Neighbours(teacher.tokenizer, matrix, recipe.candidates)
    if name is None:
        return ReplaceSource(recipe, task.train, neighbours)
    hint = 'name another as augment.replace.model, or "neighbours"'
    try:
        model, told = AutoModelForMaskedLM.from_pretrained(
            str(resolve_model_path(name) or name),
            revision=revision,
            output_loading_info=True,
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError) as error:
        raise MachineError(
            "the masked language model cannot be loaded", f"{name}: {first_line(error)}", hint
        ) from error
    if told["missing_keys"]:
        raise UsageError(
            "the model that should guess masked words has no head for it",
            f"{name} lacks {sorted(told['missing_keys'])[0]}",
            hint,
        )
    tokenizer = load_tokenizer(name, revision)
    if tokenizer.mask_token is None:
        raise UsageError("the masked language model's tokenizer has no mask token", name, hint)
    return ReplaceSource(
        recipe,
        task.train,
        neighbours,
        MaskedGuesses(
            model.to(this_device()).eval(), tokenizer, recipe.candidates, teacher.max_length
        ),
    )
