"""Generate texts with a causal language model, prompted with parts of training texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from kdedge.augment.generator import Generator
from kdedge.augment.left_padding import accepts_padding
from kdedge.augment.lines import join_line, label_name, split_line
from kdedge.augment.sampling import sample
from kdedge.augment.source import AugmentedText
from kdedge.data.task import Task
from kdedge.errors import UsageError
from kdedge.nn.device import native_precision
from kdedge.recipe import GenerateConfig
from kdedge.runtime.text_encoder import length_batches

PromptKind = Literal["bare", "label", "prefix", "second"]
"""Nothing, the label, the first words of the text, or the first text of a pair."""

REPLACEMENT_CHARACTER = "\ufffd"
"""Decoding writes it for bytes that are no whole character."""


@dataclass(frozen=True)
class GenerateSource:
    """The source `generate`: sampled continuations of prompts; kinds of prompts alternate."""

    generator: Generator
    recipe: GenerateConfig
    task: Task

    origin = "generate"
    reuses_rows = True

    @property
    def num_rows(self) -> int:
        return len(self.task.train)

    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        """Generate one text for each training row; drop unfinished and malformed texts."""
        kinds = prompt_kinds(self.recipe, self.task)
        prompts = []
        for i, row in enumerate(rows):
            prompts.append(self._prompt(int(row), kinds[i % len(kinds)], rng))
        finished = self._continue(prompts, seed=int(rng.integers(2**62)))
        if not finished:
            return []
        start, end = self.generator.start, self.generator.end
        mean_nlls = self.generator.mean_nll([[start, *ids, end] for _, ids in finished])
        texts = []
        for (i, ids), mean_nll in zip(finished, mean_nlls, strict=True):
            text = self._decode(ids, int(rows[i]), float(mean_nll))
            if text is not None:
                texts.append(text)
        return texts

    def _prompt(self, row: int, kind: PromptKind, rng: np.random.Generator) -> list[int]:
        text = prompt_text(self.task, row, kind, rng)
        start = [self.generator.start]
        if not text:
            return start
        ids = self.generator.tokenizer(text, add_special_tokens=False)["input_ids"]
        # A long first text of a pair must not be cut, so it is not used as a prompt.
        room = self.generator.limit(self.recipe.max_length) - 4
        return start + ids if len(ids) <= room else start

    def _continue(self, prompts: list[list[int]], seed: int) -> list[tuple[int, list[int]]]:
        """Continue each prompt; return (index of the prompt, token ids) for texts that ended.

        Shortest prompts come first. The ids include the prompt, but not `start` and `end`.
        """
        generator, recipe = self.generator, self.recipe
        device = generator.model.device
        lengths = [len(prompt) for prompt in prompts]
        equal_lengths = not self._mixes_lengths
        batches = length_batches(lengths, recipe.batch_size, equal_lengths=equal_lengths)
        finished = []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for batch in batches:
                sampled = sample(
                    generator,
                    [prompts[i] for i in batch],
                    max_length=generator.limit(recipe.max_length),
                    top_p=recipe.top_p,
                    temperature=recipe.temperature,
                    precision=native_precision("auto", device),
                )
                for i, ids in zip(batch, sampled, strict=True):
                    continued = ids[1:]
                    if generator.end in continued:
                        finished.append((i, continued[: continued.index(generator.end)]))
        return finished

    @property
    def _mixes_lengths(self) -> bool:
        """Whether prompts of different lengths share a batch.

        A GPU takes about as long for a small batch as for a large one. A CPU would only compute
        padding.
        """
        model = self.generator.model
        return model.device.type == "cuda" and accepts_padding(model)

    def _decode(self, ids: list[int], row: int, mean_nll: float) -> AugmentedText | None:
        line = self.generator.tokenizer.decode(ids, skip_special_tokens=True)
        text, pair = split_line(line)
        if not text or pair == "" or REPLACEMENT_CHARACTER in line:
            return None
        if (pair is not None) != self.task.spec.pair:
            return None
        return AugmentedText(text, pair, row, mean_nll)


def prompt_kinds(recipe: GenerateConfig, task: Task) -> tuple[PromptKind, ...]:
    """Return the kinds of prompt that the recipe names, or all that fit the task.

    Raises:
        UsageError: If the recipe names "second" and the task has no pairs.
    """
    if recipe.prompts is None:
        single: tuple[PromptKind, ...] = ("bare", "label", "prefix")
        return (*single, "second") if task.spec.pair else single
    if "second" in recipe.prompts and not task.spec.pair:
        raise UsageError(
            'prompts = ["second"] generates the second text of a pair',
            "this task has single texts",
            'use "bare", "label" or "prefix"',
        )
    return tuple(recipe.prompts)


def prompt_text(task: Task, row: int, kind: PromptKind, rng: np.random.Generator) -> str:
    """Return the prompt for a training row; "prefix" is at most half of its words."""
    train = task.train
    if kind == "label":
        return label_name(task.spec, train.labels[row]) + "\t"
    if kind == "prefix":
        words = train.texts[row].split()
        count = int(rng.integers(1, max(2, len(words) // 2 + 1)))
        return " ".join(words[:count])
    if kind == "second":
        return join_line(train.texts[row]) + "\n"
    return ""
