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
    LearningCurve,
)
from kdedge.distillation.pipeline import distill, prepare_context
from kdedge.distillation.seeds import distill_seeds
from kdedge.errors import IntegrityError
from kdedge.recipe import AugmentConfig, FilterConfig, Recipe, RulesConfig, load_recipe
from kdedge.run.layout import RunDir
from kdedge.run.stage import read_stage
from kdedge.transfer.dataset import read_transfer_set

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
    assert set(said["sources"]) == {"rules", "replace", "generate"}
    for origin, counts in said["sources"].items():
        accepted = counts["used"] + counts["unused"]
        assert counts["produced"] == accepted + sum(counts["rejected"].values())
        assert counts["target"] == 64 and counts["attempts"] >= counts["produced"]
        assert transfer.texts.origins.count(origin) == said["origins"][origin] > 20, (
            "enough of each passes its filters"
        )
    assert said["origins"]["labelled"] == 128
    assert {origin: labels["texts"] for origin, labels in said["labels"].items()} == said["origins"]
    assert said["labels"]["labelled"]["shift"] == 0


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
        [shingles(text) for text in texts.made],
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
        "augment.apart=24",
        "augment.generate=",
        "student.baseline=false",
    )
    run = distill(load_recipe(folder / "recipe.toml", overrides), folder / "auto")
    growth = LearningCurve.from_json(read_stage(run.folder / "curve").result)
    assert {point.sources for point in growth.points} >= {
        (),
        ("rules",),
        ("replace",),
    } and growth.chosen in growth.points
    assert 0 < growth.apart <= 24
    assert f"{growth.chosen.size:.3g} of" in read_stage(run.folder / "student").inputs["transfer"]
    assert "24 apart" in read_stage(run.folder / "student").inputs["transfer"]


def test_the_picture_shows_every_point(folder: Path, tmp_path: Path) -> None:
    out, err = command(folder, "whole", "--curve", "--set", "augment.curve=[0.5, 1.5]").communicate(
        timeout=300
    )
    assert "picture:" in out, err
    picture = (folder / "whole" / "more" / "curve" / "curve.svg").read_text()
    assert picture.startswith("<svg") and "texts the student learns from" in picture
    growth = LearningCurve.from_json(read_stage(folder / "whole" / "more" / "curve").result)
    worse = sum(
        bool(point.sources) and point.agreement < growth.points[0].agreement
        for point in growth.points
    )
    assert " ".join(out.split()).count("does not help") == worse
    assert picture.count('aria-roledescription="point"') == len(growth.points) + 1, (
        "and the ring around the chosen one"
    )


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
        origin="rules",
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
