"""Rounds of generation: keep what a probe student gets wrong, and prompt with what was kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from kdedge.benchmarks.studies._candidates import CandidateMaker, Candidates, Prompts, together
from kdedge.benchmarks.studies._divergence import Attributes, TextComparison
from kdedge.benchmarks.studies.augmentation import train_longer

from kdedge.data.task import Split
from kdedge.distillation.student_training import (
    DistillContext,
    load_trained_student,
    train_student,
    training_steps,
)
from kdedge.io.atomic import write_atomic
from kdedge.io.model_files import hash_model
from kdedge.recipe import StudentConfig
from kdedge.run.paths import StudentDir
from kdedge.run.stage import stage
from kdedge.runtime import metrics
from kdedge.transfer.dataset import TransferSet


@dataclass(frozen=True)
class RoundSettings:
    """What the variants of the study have in common.

    Attributes:
        texts: New texts of each variant.
        rounds: Number of rounds; each keeps an equal share of the texts.
        confidence: Lowest probability of the teacher's label in a text that is kept.
    """

    texts: int
    rounds: int
    confidence: float

    @property
    def shares(self) -> list[int]:
        """The number of texts that each round keeps."""
        parts = np.array_split(np.arange(self.texts), self.rounds)
        return [len(part) for part in parts]


@dataclass(frozen=True)
class Kept:
    """Texts that a probe student selected from candidates, the best first.

    Attributes:
        accepted: Number of candidates that the filters accepted.
        confident: Those of them on which the teacher is confident.
        wrong: Those of the confident ones on which the probe student is wrong.
    """

    transfer: TransferSet
    generated: int
    accepted: int
    confident: int
    wrong: int

    def summary(self) -> str:
        """Return the counts as one line."""
        return (
            f"{self.generated:,} generated, {self.accepted:,} accepted by the filters; the teacher"
            f" is confident on {self.confident:,}, the student is wrong on {self.wrong:,} of them;"
            f" {len(self.transfer):,} kept"
        )


@dataclass(frozen=True)
class LearningRounds:
    """The rounds of one student; every step is a stage in `maker.folder`.

    Attributes:
        context: Its transfer set holds the labelled texts.
    """

    context: DistillContext
    student: StudentConfig
    maker: CandidateMaker
    settings: RoundSettings

    @cached_property
    def random(self) -> list[Candidates]:
        """As many candidates as all rounds generate, with prompts from the training texts."""
        prompts = self.maker.training_prompts()
        made: list[Candidates] = []
        for number in range(1, self.settings.rounds + 1):
            earlier = [candidates.transfer for candidates in made]
            made.append(self.maker.make(f"random-{number}", prompts, self._seed(number), earlier))
        return made

    def learn(self) -> list[Kept]:
        """Run all rounds; the first one selects from the first random candidates."""
        kept: list[Kept] = []
        seen = [self.random[0].transfer]
        for number, share in enumerate(self.settings.shares, 1):
            chosen = [selected.transfer for selected in kept]
            candidates = self.random[0]
            if number > 1:
                seed = self._seed(self.settings.rounds + number)
                candidates = self.maker.make(
                    f"learned-{number}", self._prompts(together(chosen)), seed, seen
                )
                seen.append(candidates.transfer)
            probe = self._probe(number, chosen)
            kept.append(self._keep(f"kept-{number}", candidates, probe, share))
        return kept

    def select_once(self) -> Kept:
        """Select from all random candidates, with the student of the first round."""
        transfer = together([candidates.transfer for candidates in self.random])
        generated = sum(candidates.generated for candidates in self.random)
        pool = Candidates(transfer, generated)
        return self._keep("kept-once", pool, self._probe(1, []), self.settings.texts)

    def attributes(self, transfer: TransferSet) -> Attributes:
        """Describe texts by label and length."""
        train = self.context.task.train
        words = word_counts(transfer.texts.texts, transfer.texts.pairs)
        training = word_counts(train.texts, train.pairs)
        return Attributes.of(self.context.task.spec, transfer.logits, words, training)

    def _seed(self, number: int) -> int:
        return self.context.recipe.seed + number

    def _prompts(self, transfer: TransferSet) -> Prompts:
        """Return prompts from kept texts, balanced over label and length."""
        texts, spec = transfer.texts, self.context.task.spec
        pairs = None if texts.pairs is None else tuple(texts.pairs)
        labels = metrics.decide(spec, transfer.logits)
        split = Split(tuple(texts.texts), pairs, labels)
        return Prompts(split, self.attributes(transfer).balanced_rows())

    def _probe(self, number: int, chosen: list[TransferSet]) -> Path:
        """Train a student from scratch on labelled and kept texts; return its folder."""
        transfer = together([self.context.transfer, *chosen])
        total = len(self.context.transfer) + self.settings.texts
        student = train_longer(self.student, total / len(transfer))
        context = replace(self.context, transfer=transfer, transfer_key=transfer.content_hash())
        folders = StudentDir(student.key, self.maker.folder / f"probe-{number}")
        folders.folder.mkdir(parents=True, exist_ok=True)
        for step in training_steps(student, folders):
            train_student(context, student, step)
        return folders.student

    def _keep(self, name: str, candidates: Candidates, probe: Path, count: int) -> Kept:
        """Run a stage that compares the probe with the teacher and selects `count` texts."""
        folder, transfer = self.maker.folder / name, candidates.transfer
        inputs = {
            "candidates": transfer.content_hash(),
            "probe": hash_model(probe),
            "count": count,
            "confidence": self.settings.confidence,
        }

        def make(part: Path) -> dict[str, Any]:
            student = load_trained_student(probe)
            logits = student.predict_logits(transfer.texts.texts, transfer.texts.pairs)
            comparison = TextComparison.of(self.context.task.spec, transfer.logits, logits)
            rows = comparison.select(count, self.settings.confidence)
            confident = comparison.confident(self.settings.confidence)
            np.save(part / "student_logits.npy", logits)
            np.save(part / "rows.npy", rows)
            attributes = self.attributes(transfer)
            write_atomic(part / "kept.jsonl", kept_lines(transfer, rows, attributes, comparison))
            return {
                "accepted": len(transfer),
                "confident": len(confident),
                "wrong": int(comparison.wrong[confident].sum()),
            }

        counts = stage(folder, inputs, make, stages=self.context.stages)
        rows = np.load(folder / "rows.npy", allow_pickle=False)
        return Kept(transfer.take(rows), candidates.generated, **counts)


def kept_lines(
    transfer: TransferSet, rows: np.ndarray, attributes: Attributes, comparison: TextComparison
) -> str:
    """Write the kept texts for a reader, one JSON object a line."""
    lines = []
    for row in rows.tolist():
        document = {
            "text": transfer.texts.texts[row],
            "pair": None if transfer.texts.pairs is None else transfer.texts.pairs[row],
            "label": attributes.labels[row],
            "length": attributes.lengths[row],
            "confidence": round(float(comparison.confidence[row]), 4),
            "wrong": bool(comparison.wrong[row]),
            "divergence": round(float(comparison.divergence[row]), 4),
        }
        lines.append(json.dumps(document, ensure_ascii=False) + "\n")
    return "".join(lines)


def word_counts(texts: Sequence[str], pairs: Sequence[str] | None) -> list[int]:
    """Count the words of each text, or of both texts of each pair."""
    counts = [len(text.split()) for text in texts]
    if pairs is not None:
        for row, pair in enumerate(pairs):
            counts[row] += len(pair.split())
    return counts
