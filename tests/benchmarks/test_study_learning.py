"""Learning to augment: which texts are kept, and that a second run makes nothing again."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factories
import learn_to_augment
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from kdedge.benchmarks.studies._candidates import Prompts, remember, together
from kdedge.benchmarks.studies._divergence import Attributes, TextComparison
from kdedge.benchmarks.studies._experiments import Rows, TrainingVariant, train_all
from learn_to_augment import study

from kdedge.augment.filters import TextFilter
from kdedge.augment.near_duplicates import shingles
from kdedge.augment.source import AugmentedText
from kdedge.data.shares import normalised
from kdedge.data.task import Split
from kdedge.distillation.student_training import load_trained_student
from kdedge.errors import UsageError
from kdedge.io.arrow import map_table
from kdedge.recipe import FilterConfig
from kdedge.run.stage import STAGE_FILE
from kdedge.transfer.dataset import TransferSet, read_transfer_set
from kdedge.transfer.texts import TransferTexts

CONFIDENCE = 0.75
LABELLED, NEW, ROUNDS = 48, 24, 2
HELD_OUT = 0.95
GENERATE = {
    "layers": 1,
    "hidden": 32,
    "heads": 2,
    "vocabulary": 300,
    "max_length": 48,
    "prompts": ["prefix", "label"],
    "fit": {"epochs": 25, "batch_size": 16, "learning_rate": 1e-2},
}


@dataclass(frozen=True)
class Finished:
    """The folder of a study that ran twice, and what it printed."""

    folder: Path
    first: str
    again: str
    messages: str
    made_again: list[str]
    variants: dict[str, TrainingVariant]

    def kept(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name / "kept.jsonl").open()]

    def labelled(self, name: str) -> TransferSet:
        return read_transfer_set(self.folder / f"{name}-labelled")

    def randoms(self) -> TransferSet:
        return together([self.labelled(f"random-{number + 1}") for number in range(ROUNDS)])

    def new(self, name: str) -> list[str]:
        return list(self.variants[name].context.transfer.texts.texts)[LABELLED:]

    def trainings(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "runs.jsonl").open()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("learning")
    before = torch.get_num_threads()
    document = factories.write_data_and_teacher(folder, train=LABELLED)
    filters = {"near": 1.0, "held_out": HELD_OUT, "perplexity": [0.0, 1.0]}
    augment = {"size": NEW / LABELLED, "generate": GENERATE, "filters": filters}
    student = factories.tinybert_config()
    recipe = factories.make_recipe(document, augment=augment, student=student)
    (folder / "r.toml").write_text(recipe.to_toml())
    options = f"{folder}/r.toml --runs {folder}/runs --seeds 2 --threads 1 --rounds {ROUNDS}"
    options += f" --candidates 200 --confidence {CONFIDENCE}"
    variants: dict[str, TrainingVariant] = {}

    def record(listed: list[TrainingVariant], *arguments: Any) -> list[Rows]:
        variants.update((variant.name, variant) for variant in listed)
        return train_all(listed, *arguments)

    first = CliRunner().invoke(study, options.split(), catch_exceptions=False)
    made = stage_times(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn_to_augment, "train_all", record)
        again = CliRunner().invoke(study, options.split(), catch_exceptions=False)
    made_again = [str(path) for path, time in stage_times(folder).items() if made.get(path) != time]
    torch.set_num_threads(before)
    return Finished(
        folder / "runs" / "r" / "learn-to-augment",
        first.stdout,
        again.stdout,
        again.stderr,
        made_again,
        variants,
    )


def stage_times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob(STAGE_FILE)}


def test_all_variants_have_equally_many_new_texts_and_steps(finished: Finished) -> None:
    texts = {row["cell"]: row["texts"] for row in finished.trainings()}
    with_new = ["random", "confident", "divergent, once", "divergent, 2 rounds"]
    labelled = "labelled, more steps"
    assert texts == {name: LABELLED + NEW for name in with_new} | {labelled: LABELLED}
    assert len(finished.trainings()) == 2 * len(texts)
    assert "| random | 72 |" in finished.first
    steps = set()
    for variant in finished.variants.values():
        fit, count = variant.student.fit, len(variant.context.transfer)
        steps.add(math.ceil(math.ceil(count / fit.batch_size) * fit.epochs))
        assert list(variant.context.transfer.texts.origins)[:LABELLED] == ["labelled"] * LABELLED
    assert len(steps) == 1


def test_random_and_confident_texts_come_from_the_random_candidates(finished: Finished) -> None:
    pool = finished.randoms()
    confidence = {}
    for text, logits in zip(pool.texts.texts, pool.logits.astype(float), strict=True):
        confidence[text] = softmax(logits).max()
    assert min(confidence.values()) < CONFIDENCE
    random, confident, once, rounds = (finished.new(name) for name in list(finished.variants)[:4])
    assert set(random) | set(confident) <= confidence.keys()
    assert any(confidence[text] < CONFIDENCE for text in random), "no selection"
    assert all(confidence[text] >= CONFIDENCE for text in confident)
    assert once == [row["text"] for row in finished.kept("kept-once")]
    kept = [*finished.kept("kept-1"), *finished.kept("kept-2")]
    assert rounds == [row["text"] for row in kept]


@pytest.mark.parametrize(
    ("name", "pools", "probe", "count"),
    [
        ("kept-1", ["random-1"], "probe-1", NEW // ROUNDS),
        ("kept-2", ["learned-2"], "probe-2", NEW // ROUNDS),
        ("kept-once", ["random-1", "random-2"], "probe-1", NEW),
    ],
)
def test_kept_texts_are_confident_and_wrong_or_of_largest_divergence(
    finished: Finished, name: str, pools: list[str], probe: str, count: int
) -> None:
    """Everything is computed again, text by text, from the stored models and texts."""
    pool = together([finished.labelled(pool) for pool in pools])
    student = load_trained_student(finished.folder / probe / "student")
    ranked = []
    for text, teacher in zip(pool.texts.texts, pool.logits.astype(float), strict=True):
        p = softmax(teacher)
        q = softmax(student.predict_logits([text], None)[0].astype(float))
        divergence = sum(p[i] * math.log(p[i] / q[i]) for i in range(2))
        if p.max() >= CONFIDENCE:
            ranked.append((p.argmax() != q.argmax(), divergence, text))
    ranked.sort(reverse=True)
    kept = finished.kept(name)
    assert len(ranked) > count, "some confident texts are left out"
    assert [row["text"] for row in kept] == [text for _, _, text in ranked[:count]]
    assert [row["wrong"] for row in kept] == [wrong for wrong, _, _ in ranked[:count]]
    wrong = sum(wrong for wrong, _, _ in ranked)
    assert f"on {len(ranked):,}, the student is wrong on {wrong:,} of them" in finished.first


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum()


def test_the_next_prompts_are_the_kept_texts_with_the_labels_of_the_teacher(
    finished: Finished,
) -> None:
    kept = finished.kept("kept-1")
    labels = np.array([int(row["label"]) for row in kept])
    split = Split(tuple(row["text"] for row in kept), None, labels)
    names, lengths = ([row[key] for row in kept] for key in ("label", "length"))
    rows = Attributes(tuple(names), tuple(lengths)).balanced_rows()
    stage_file = finished.folder / "learned-2" / STAGE_FILE
    inputs = json.loads(stage_file.read_text())["inputs"]
    assert inputs["prompts"] == Prompts(split, rows).content_hash()
    table = map_table(finished.folder / "learned-2" / "texts.arrow")
    texts, used = table["text"].to_pylist(), table["row"].to_pylist()

    def equal_beginnings(sources: tuple[str, ...]) -> int:
        begins = [text.split()[:2] for text in texts]
        return sum(begins[i] == sources[row].split()[:2] for i, row in enumerate(used))

    train = factories.single_task(LABELLED).train.texts
    assert equal_beginnings(split.texts) > 2 * equal_beginnings(train)


def test_the_second_probe_also_learns_from_the_kept_texts(finished: Finished) -> None:
    first, second = (
        load_trained_student(finished.folder / f"probe-{number}" / "student")
        .predict_logits(["the film was good 1"], None)
        .tolist()
        for number in (1, 2)
    )
    assert first != second


def test_no_text_is_held_out_or_occurs_twice_in_a_variant(finished: Finished) -> None:
    task = factories.single_task(LABELLED)
    held_out = [*task.validation.texts, *task.test.texts]
    known = {normalised(text, None) for text in (*held_out, *task.train.texts)}
    pools = (
        finished.randoms(),
        together([finished.labelled("random-1"), finished.labelled("learned-2")]),
    )
    for pool in pools:
        keys = [normalised(text, None) for text in pool.texts.texts]
        assert len(set(keys)) == len(keys) and known.isdisjoint(keys)
        for text in pool.texts.texts:
            own = shingles(text, None)
            assert all(
                factories.jaccard(own, shingles(other, None)) < HELD_OUT for other in held_out
            )


def test_texts_of_earlier_rounds_are_rejected() -> None:
    task = factories.single_task(LABELLED)
    text_filter = TextFilter.for_task(FilterConfig(near=1.0, held_out=1.0), task)
    texts = ("the film was good 1", "the plot was bad 22")
    new = TransferTexts.of(texts, None, ("generate",) * 2, np.full(2, -1))
    remember([TransferSet(new, np.zeros((2, 2)))], text_filter)
    for text in (*texts, "the plot was bad 23"):
        text_filter.accept(AugmentedText(text, None, 0), "generate")
    assert text_filter.rejected_by_reason("generate") == {"duplicate": 2}


def test_a_second_run_makes_nothing_again(finished: Finished) -> None:
    assert finished.made_again == []
    assert "10 of 10 trainings are in the log" in finished.messages
    assert finished.again == finished.first


def test_wrong_texts_come_first_and_too_few_confident_texts_are_an_error() -> None:
    comparison = TextComparison(
        confidence=np.array([0.95, 0.99, 0.5, 0.9, 0.97]),
        wrong=np.array([False, True, True, False, True]),
        divergence=np.array([9.0, 1.0, 8.0, 7.0, 2.0]),
    )
    assert comparison.select(4, 0.9).tolist() == [4, 1, 0, 3]
    with pytest.raises(UsageError, match="too few"):
        comparison.select(5, 0.9)


def test_a_regression_ranks_by_the_difference() -> None:
    spec = factories.regression_task().spec
    teacher, student = np.array([[1.0], [2.0], [3.0]]), np.array([[1.5], [2.1], [0.0]])
    comparison = TextComparison.of(spec, teacher, student)
    assert comparison.select(3, 0.9).tolist() == [2, 0, 1]
    assert not comparison.wrong.any()


def test_prompts_are_balanced_over_label_and_length_without_many_repeats() -> None:
    """40 short bad, 9 short good and 1 long good text: three groups, so 17 rows each."""
    spec = factories.single_task().spec
    logits = np.array([[1.0, 0.0]] * 40 + [[0.0, 1.0]] * 10)
    attributes = Attributes.of(spec, logits, [3] * 49 + [30], [3, 10, 20])
    rows = attributes.balanced_rows()
    counts = Counter(rows.tolist())
    assert sum(counts[row] for row in range(40)) == 17
    assert sum(counts[row] for row in range(40, 49)) == 17
    assert counts[49] == 4, "one text is used at most four times"
    assert attributes.summary() == "short 98 %, medium 0 %, long 2 %; bad 80 %, good 20 %"
