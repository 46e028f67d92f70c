"""`kdedge augment` and distillation on new texts with small models: killed and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import factories
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from kdedge_process import kdedge_command

from kdedge.augment.filters import TextFilter
from kdedge.augment.make import make_texts
from kdedge.augment.near_duplicates import shingles
from kdedge.augment.pool import PoolSource
from kdedge.augment.rules import RuleSource
from kdedge.augment.source import AugmentedText
from kdedge.augment.sources import Sources
from kdedge.augment.word_classes import induce_classes
from kdedge.data.shares import normalised
from kdedge.distillation.learning_curve import (
    CurvePoint,
    LearningCurve,
    difference_error,
    fit_learning_curve,
    subset,
)
from kdedge.distillation.pipeline import distill, prepare_context
from kdedge.distillation.seeds import distill_seeds
from kdedge.errors import IntegrityError
from kdedge.recipe import AugmentConfig, FilterConfig, Recipe, RulesConfig, load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_stage
from kdedge.transfer.dataset import TransferSet, read_transfer_set

pytestmark = pytest.mark.slow

RECIPE = """
name = "more"
[data]
source = "{folder}/data"
validation = 0.2
test = "test"
[teacher]
model = "{folder}/encoder"
max_length = 48
fit = {{epochs = 4, learning_rate = 1e-3, batch_size = 16, checks = 2}}
[augment]
size = 1.5
shard_size = 32
[augment.rules]
[augment.replace]
[augment.generate]
layers = 1
hidden = 32
heads = 2
vocabulary = 300
fit = {{epochs = 20, batch_size = 16, learning_rate = 1e-2, checks = 2}}
[augment.filters]
near = 1.0
[[student]]
kind = "bilstm"
hidden = 8
head = 8
max_length = 48
fit = {{epochs = 2, checks = 1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, an encoder, a recipe, and in `whole` a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("more")
    torch.manual_seed(0)
    tokenizer = factories.tokenizer()
    factories.bert(layers=2, vocabulary=len(tokenizer), initializer_range=0.2).bert.save_pretrained(
        folder / "encoder"
    )
    tokenizer.save_pretrained(folder / "encoder")
    (folder / "data").mkdir()
    for split, count, seed in (("train", 160, 1), ("test", 64, 2)):
        texts, labels = factories.sentences(count, seed)
        pq.write_table(
            pa.table({"text": list(texts), "label": [("bad", "good")[i] for i in labels]}),
            folder / "data" / f"{split}.parquet",
        )
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder))
    done = command(folder, "whole", "--json").communicate(timeout=300)
    (folder / "said.json").write_text(done[0].splitlines()[-1])
    return folder


def command(folder: Path, runs: str, *options: str, processes: int = 1) -> subprocess.Popen[str]:
    arguments = [
        "augment",
        str(folder / "recipe.toml"),
        "--runs",
        str(folder / runs),
        "--threads",
        "1",
        *options,
    ]
    environment = {**os.environ, "COLUMNS": "150"}
    # `accelerate launch` starts this for several devices; for CPUs it would require MPI.
    several = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(processes),
        "--no-python",
    ]
    return subprocess.Popen(
        [*(several if processes > 1 else []), *kdedge_command(*arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def made_hashes(run: Path) -> dict[str, str]:
    names = (
        "augment/texts.arrow",
        "generator/model.safetensors",
        "transfer/texts.arrow",
        "transfer/logits.npy",
        "transfer/keys.npy",
    )
    hashes = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}
    record = read_stage(run / "augment")
    return hashes | {"augment": repr((record.inputs, record.result))}


def test_each_source_gives_its_share_and_is_counted(folder: Path) -> None:
    said = json.loads((folder / "said.json").read_text())
    transfer = read_transfer_set(folder / "whole" / "more" / "transfer")
    assert set(said["sources"]) == {"rule", "replace", "generate"}
    for origin, counts in said["sources"].items():
        accepted = counts["used"] + counts["unused"]
        assert counts["produced"] == accepted + sum(counts["rejected"].values())
        assert counts["target"] == 64 and counts["attempts"] >= counts["produced"]
        assert transfer.texts.origins.count(origin) == said["origins"][origin] > 20, (
            "enough of each passes its filters"
        )
    assert said["origins"]["labelled"] == 128


def test_no_made_text_stands_among_those_held_out(folder: Path) -> None:
    run, _ = RunDir.open(folder / "whole" / "more")
    context = prepare_context(run.recipe, run)
    held = {
        normalised(text)
        for split in (context.task.validation, context.task.test)
        for text in split.texts
    }
    texts = context.transfer.texts
    assert not held & {normalised(text) for text in texts.texts}
    made, forbidden = (
        [shingles(text) for text in texts.augmented],
        [shingles(text) for text in held],
    )
    assert (
        len(made) > 60
        and max(factories.jaccard(mine, theirs) for mine in made for theirs in forbidden)
        < context.recipe.augment.filters.held_out
    )
    assert len({normalised(text) for text in texts.texts}) == len(texts)


def test_two_processes_make_and_label_the_same_set(folder: Path) -> None:
    for stage in ("teacher", "generator"):
        shutil.copytree(folder / "whole" / "more" / stage, folder / "two" / "more" / stage)
    with (folder / "whole" / "more" / "recipe.toml").open() as recipe:
        (folder / "two" / "more" / "recipe.toml").write_text(recipe.read())
    talk = command(folder, "two", processes=2)
    said, told = talk.communicate(timeout=300)
    assert talk.returncode == 0, told[-2000:]
    assert made_hashes(folder / "two" / "more") == made_hashes(folder / "whole" / "more")
    assert said.count("more: new texts for") == 1, "only one process prints"


@pytest.mark.parametrize("share", [0.6, 0.8])
def test_killed_and_resumed_is_the_same_set(folder: Path, share: float) -> None:
    """kill -9 while texts are made, after a share of the files exists."""
    runs = folder / f"killed-{share}"
    marks = [
        "teacher.part",
        "generator.part",
        "augment.part/replace-00000.parquet",
        "augment.part/generate-00000.parquet",
    ]
    mark = runs / "more" / marks[int(share * 4)]
    process = command(folder, runs.name)
    until = time.monotonic() + 200
    while not mark.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (runs / "more" / "transfer").exists(), "it was killed before its end"
    out, err = command(folder, runs.name).communicate(timeout=300)
    assert "run:" in out, err
    assert made_hashes(runs / "more") == made_hashes(folder / "whole" / "more")


def test_a_run_that_shares_the_texts_makes_none(folder: Path) -> None:
    overrides = ("augment.generate=", "student.baseline=false")
    run = distill(load_recipe(folder / "recipe.toml", overrides), folder / "sharing")
    times = {path: path.stat().st_mtime_ns for path in run.folder.rglob("stage.json")}
    seeds = distill_seeds(run.recipe, folder / "sharing", 2)
    other = {
        "name": "other",
        "share": run.folder.name,
        "student": [run.recipe.student[0].model_copy(update={"max_length": 20})],
    }
    made = distill(run.recipe.model_copy(update=other), folder / "sharing")
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("stage.json")} == times
    assert (made.folder / "student").exists() and (seeds[1].folder / "student").exists()
    assert not (made.folder / "augment").exists()


def test_auto_takes_what_the_curve_says(folder: Path) -> None:
    overrides = (
        "augment.size=auto",
        "augment.curve=[0.5, 1]",
        "augment.generate=",
        "student.baseline=false",
    )
    run = distill(load_recipe(folder / "recipe.toml", overrides), folder / "auto")
    growth = LearningCurve.from_json(read_stage(run.folder / "curve").result)
    assert {point.sources for point in growth.points} >= {
        (),
        ("rule",),
        ("replace",),
    } and growth.chosen in growth.points
    assert f"{growth.chosen.size:.3g} of" in read_stage(run.folder / "student").inputs["transfer"]


def test_the_picture_shows_every_point(folder: Path, tmp_path: Path) -> None:
    out, err = command(folder, "whole", "--curve", "--set", "augment.curve=[0.5, 1.5]").communicate(
        timeout=300
    )
    assert "picture:" in out, err
    picture = (folder / "whole" / "more" / "curve" / "curve.svg").read_text()
    assert picture.startswith("<svg") and "texts the student learns from" in picture
    growth = LearningCurve.from_json(read_stage(folder / "whole" / "more" / "curve").result)
    worse = sum(
        bool(point.sources) and point.validation < growth.points[0].validation
        for point in growth.points
    )
    assert " ".join(out.split()).count("does not help") == worse
    assert picture.count('aria-roledescription="point"') == len(growth.points) + 1, (
        "and the ring around the chosen one"
    )


def set_of(*origins: str) -> TransferSet:
    from kdedge.transfer.texts import TransferTexts

    texts = TransferTexts.of(
        tuple(f"t{i}" for i in range(len(origins))), None, origins, np.zeros(len(origins), np.int64)
    )
    return TransferSet(texts, np.arange(2 * len(origins), dtype=np.float16).reshape(-1, 2))


def test_a_part_is_the_gold_texts_and_the_first_of_the_made() -> None:
    whole = set_of("labelled", "labelled", "rule", "replace", "rule", "replace", "rule")
    assert subset(whole, 1.0, ("rule",)).texts.texts == ("t0", "t1", "t2", "t4")
    assert subset(whole, 1.5, ("rule", "replace")).texts.texts == ("t0", "t1", "t2", "t3", "t4")
    assert subset(whole, 9.0, ()).logits.tolist() == whole.logits[:2].tolist()


def test_growth_leaves_out_what_hurts_and_stops_where_it_is_flat() -> None:
    """A probe whose right answers are counted: rules help up to 2 texts each, replacement hurts."""
    task = factories.single_task(40)
    origins = ["labelled"] * 40 + ["rule", "replace"] * 160
    asked = []

    def probe(transfer: TransferSet, number: int, place: Path) -> np.ndarray:
        made = [origin for origin in transfer.texts.origins if origin != "labelled"]
        right = 18 + min(12, 6 * made.count("rule") // 40) - made.count("replace") // 4
        asked.append((len(made), tuple(sorted(set(made)))))
        answers = np.eye(2, dtype=np.float32)[task.validation.labels]
        return np.where(np.arange(32)[:, None] < right, answers, 1 - answers)

    recipe = AugmentConfig(curve=[1, 2, 4], rules=RulesConfig())
    growth = fit_learning_curve(recipe, set_of(*origins), task, probe, Path("nowhere"))
    assert asked == [
        (0, ()),
        (40, ("rule",)),
        (40, ("replace",)),
        (80, ("rule",)),
        (160, ("rule",)),
    ]
    assert growth.chosen.sources == ("rule",) and growth.chosen.size <= 2
    assert [point.validation for point in growth.points] == [
        18 / 32,
        24 / 32,
        8 / 32,
        30 / 32,
        30 / 32,
    ]
    apart = 6 / 32  # of the best and the smallest set of rules: answers that one alone got right
    assert [point.error for point in growth.points[3:]] == [0.0, 0.0] and growth.points[
        1
    ].error == pytest.approx(np.sqrt(apart * (1 - apart) / 32), rel=0.15)
    assert LearningCurve.from_json(json.loads(json.dumps(growth.to_json()))) == growth
    asked.clear()
    short = fit_learning_curve(
        AugmentConfig(curve=[1, 4, 16], rules=RulesConfig()),
        set_of(*["labelled"] * 40, *["rule"] * 80),
        task,
        probe,
        Path("nowhere"),
    )
    assert [point.size for point in short.points] == [0, 1, 2] and len(asked) == 3, (
        "what was not made is neither trained on nor told"
    )


def test_growth_over_seeds_is_the_mean_and_its_error_knows_them() -> None:
    """Replacement looks better than labelled from the first seed alone."""
    task = factories.single_task(40)
    places = []

    def probe(transfer: TransferSet, number: int, place: Path) -> np.ndarray:
        places.append(place)
        right = {"rule": (26, 28, 30), "replace": (24, 14, 16)}.get(
            transfer.texts.origins[-1], (20, 20, 20)
        )[number]
        answers = np.eye(2, dtype=np.float32)[task.validation.labels]
        return np.where(np.arange(32)[:, None] < right, answers, 1 - answers)

    whole = set_of(*["labelled"] * 40, *["rule"] * 40, *["replace"] * 40)
    lucky, told = (
        fit_learning_curve(
            AugmentConfig(curve=[1], seeds=seeds, rules=RulesConfig()),
            whole,
            task,
            probe,
            Path("nowhere"),
        )
        for seeds in (1, 3)
    )
    assert lucky.points[-1].sources == ("rule", "replace") and lucky.points[0].sd is None
    assert [point.sources for point in told.points] == [(), ("rule",), ("replace",)], (
        "only rules help, and alone they were asked already"
    )
    assert (
        told.chosen.sources == ("rule",)
        and told.chosen.validation == 28 / 32
        and told.chosen.sd == pytest.approx(2 / 32)
    )
    apart = 8 / 32
    texts = np.sqrt(apart * (1 - apart) / 32)
    assert told.points[0].error == pytest.approx(np.hypot(texts, 2 / 32 / np.sqrt(3)), rel=0.15)
    assert len(set(places[4:])) == 9, "every training has a folder of its own"


def test_shared_errors_do_not_widen_the_error_of_a_difference() -> None:
    """20 and 22 of 32 texts are right, 20 of them in both.

    The gain is smaller than the error of either score, but larger than that of the difference.
    """
    task = factories.single_task(40)
    answers = np.eye(2, dtype=np.float32)[task.validation.labels]
    labelled, rules = (
        np.where(np.arange(32)[:, None] < right, answers, 1 - answers)[None] for right in (20, 22)
    )
    found = difference_error(task, rules, labelled, task.validation)
    assert found == pytest.approx(np.sqrt(2 / 32 * 30 / 32 / 32), rel=0.15)
    assert found < 2 / 32 < np.sqrt(22 / 32 * 10 / 32 / 32)


class Twenty(PoolSource):
    """A pool that notes which rows it was asked for."""

    asked: ClassVar[list[int]] = []

    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        self.asked.extend(rows.tolist())
        return super().produce(rows, rng)


def test_a_pool_is_read_once_and_its_file_is_checked(tmp_path: Path) -> None:
    task, recipe = (
        factories.single_task(40),
        AugmentConfig(size=4.0, shard_size=8, rules=RulesConfig()),
    )
    pool = Twenty(tuple(factories.sentences(20, 9)[0]), None)
    sources = Sources([pool], {}, recipe, task)
    made = make_texts(sources, tmp_path / "augment", size=4.0)
    assert sorted(pool.asked) == list(range(20)), "each row once: asked again it would say the same"
    counts = read_stage(tmp_path / "augment").result["sources"]["pool"]
    assert counts["attempts"] == counts["produced"] == 20 and counts["used"] == len(made) > 5
    path = tmp_path / "augment" / "texts.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="a file of a finished stage has changed"):
        make_texts(sources, tmp_path / "augment", size=4.0)


def test_what_is_too_short_to_pass_is_not_started_from(tmp_path: Path) -> None:
    task = factories.single_task(40)
    lengths = [len(text.split()) for text in task.train.texts]
    shortest = sorted(lengths)[20]
    recipe = AugmentConfig(
        size=1.0, shard_size=64, rules=RulesConfig(), filters=FilterConfig(shortest=shortest)
    )
    source, asked = (
        RuleSource(
            RulesConfig(window=0.0), task.train, induce_classes(tuple(task.train.texts)), "[MASK]"
        ),
        [],
    )
    noting = SimpleNamespace(
        origin="rule",
        reuses_rows=True,
        num_rows=40,
        produce=lambda rows, rng: asked.extend(rows.tolist()) or source.produce(rows, rng),
    )
    sources = Sources([noting], {}, recipe, task)
    make_texts(sources, tmp_path / "augment", size=1.0)
    long_enough = {row for row, length in enumerate(lengths) if length >= shortest}
    assert 0 < len(long_enough) < 40
    assert set(asked) == long_enough, "each of them, before any comes again"
    assert TextFilter.for_task(FilterConfig(shortest=999, longest=2000), task).eligible_rows(
        task.train
    ).tolist() == list(range(40)), "a generator may write longer texts than it has read"


def test_a_recipe_without_sources_is_refused() -> None:
    with pytest.raises(ValueError, match="names no source"):
        Recipe.model_validate(
            {
                "name": "x",
                "data": {"source": "y"},
                "teacher": {"model": "z"},
                "student": {"kind": "bilstm"},
                "augment": {"size": 2.0},
            }
        )
    assert CurvePoint(0.0, (), 1, 0.5).sources == ()
