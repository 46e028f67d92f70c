"""Texts written by the generator: from nothing, from a label, from opening words, or the second text from the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kdedge.augment.generator import Generator, as_line, label_name
from kdedge.augment.sampling import sample
from kdedge.augment.source import AugmentedText
from kdedge.data.task import Split, Task
from kdedge.errors import UsageError
from kdedge.nn.device import native_precision
from kdedge.recipe import GenerateConfig

Prompt = str
PROMPTS = ("bare", "label", "prefix", "second")


@dataclass(frozen=True)
class GenerateSource:
    """The source `generate`: sampled continuations of prompts that come from training texts, kinds of prompt in turn."""

    generator: Generator
    recipe: GenerateConfig
    task: Task

    origin = "generate"
    renewable = True

    @property
    def starts(self) -> int:
        return len(self.task.train)

    def make(self, rows: np.ndarray, chance: np.random.Generator) -> list[AugmentedText]:
        """One text for each training row (N,); one that is empty, not whole letters, or a pair without its second text is left out."""
        kinds = prompt_kinds(self.recipe, self.task)
        prompts = [
            self._prompt(int(row), kinds[i % len(kinds)], chance) for i, row in enumerate(rows)
        ]
        written = list(self._continue(prompts, int(chance.integers(2**62))))
        surprise = (
            self.generator.surprise(
                [[self.generator.start, *ids, self.generator.end] for _, ids in written]
            )
            if written
            else ()
        )
        made = [
            self._read(int(rows[i]), ids, float(nats))
            for (i, ids), nats in zip(written, surprise, strict=True)
        ]
        return [text for text in made if text is not None]

    def _prompt(self, row: int, kind: Prompt, chance: np.random.Generator) -> list[int]:
        lead = prompt_text(self.task, row, kind, chance)
        ids = self.generator.tokenizer(lead, add_special_tokens=False)["input_ids"] if lead else []
        # A first text that leaves no room for a second cannot be shortened: it is a part of the pair. Then nothing is given.
        room = self.generator.cap(self.recipe.max_length) - 4
        return [self.generator.start, *(ids if len(ids) <= room else [])]

    def _continue(self, prompts: list[list[int]], seed: int) -> Iterator[tuple[int, list[int]]]:
        """(place in `prompts`, token ids of the whole line without `start` and `end`), prompts of equal length together."""
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        with torch.random.fork_rng(
            devices=[self.generator.model.device]
            if self.generator.model.device.type == "cuda"
            else []
        ):
            torch.manual_seed(seed)
            for batch in _equal_length(order, prompts, self.recipe.batch_size):
                for i, ids in zip(batch, self._sample([prompts[i] for i in batch]), strict=True):
                    if self.generator.end in ids:  # one that never ended is half a text
                        yield i, ids[: ids.index(self.generator.end)]

    def _sample(self, prompts: list[list[int]]) -> list[list[int]]:
        precision = native_precision("auto", self.generator.model.device)
        longest = self.generator.cap(self.recipe.max_length)
        rows = sample(
            self.generator, prompts, longest, self.recipe.top_p, self.recipe.temperature, precision
        )
        return [row[1:] for row in rows]

    def _read(self, row: int, ids: list[int], surprise: float) -> AugmentedText | None:
        line = self.generator.tokenizer.decode(ids, skip_special_tokens=True)
        text, newline, pair = line.rpartition("\t")[2].partition("\n")
        text, pair = " ".join(text.split()), " ".join(pair.split())
        if (
            not text
            or "\ufffd" in line
            or bool(newline) != self.task.spec.pair
            or (self.task.spec.pair and not pair)
        ):
            return None
        return AugmentedText(text, pair if self.task.spec.pair else None, row, surprise)


def prompt_kinds(recipe: GenerateConfig, task: Task) -> tuple[Prompt, ...]:
    """The kinds of prompt asked for, or all that fit the task. Raises UsageError for `second` without pairs."""
    if recipe.prompts is None:
        return PROMPTS if task.spec.pair else PROMPTS[:3]
    if "second" in recipe.prompts and not task.spec.pair:
        raise UsageError(
            'prompts = ["second"] writes the second text of a pair',
            "this task has single texts",
            'use "bare", "label" or "prefix"',
        )
    return tuple(recipe.prompts)


def prompt_text(task: Task, row: int, kind: Prompt, chance: np.random.Generator) -> str:
    """What stands before the text that is to be written."""
    train: Split = task.train
    if kind == "label":
        return label_name(task.spec, train.labels[row]) + "\t"
    if kind == "prefix":
        words = train.texts[row].split()
        return " ".join(words[: int(chance.integers(1, max(2, len(words) // 2 + 1)))])
    if kind == "second":
        return as_line(train.texts[row]) + "\n"
    return ""


def _equal_length(order: list[int], prompts: list[Any], size: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) == size or len(prompts[i]) != len(prompts[batch[0]])):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
