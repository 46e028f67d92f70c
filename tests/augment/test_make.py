"""The stage `augment/`: shards, resumption, order of rows, counts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import factories
import numpy as np
import pyarrow as pa
import pytest

from kdedge.augment.counts import read_source_counts
from kdedge.augment.make import cleaned_texts, make_texts, read_augmented_texts
from kdedge.augment.shards import TEXT_FIELDS
from kdedge.augment.source import AugmentedText, TextSource
from kdedge.augment.sources import Sources
from kdedge.errors import Interrupted
from kdedge.io.arrow import map_table
from kdedge.recipe import AugmentConfig, FilterConfig, RulesConfig
from kdedge.run.stage import read_stage
from kdedge.runtime.cleaning import CountingCleaner
from kdedge.transfer.texts import TransferTexts


@dataclass
class RandomSource:
    """Produces random texts and records its rows; stops with an error after some shards."""

    stop_after: int = 10**9
    origin: str = "rules"
    num_rows: int = 96
    reuses_rows: bool = True
    shards: list[np.ndarray] = field(default_factory=list)

    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        if len(self.shards) >= self.stop_after:
            raise KeyboardInterrupt
        self.shards.append(rows)
        texts = []
        for i, row in enumerate(rows):
            text = f"{self.origin} {factories.THINGS[i % 10]} {rng.integers(10**9)} was fine here"
            texts.append(AugmentedText(text, None, int(row)))
        return texts


class ConstantSource(RandomSource):
    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        return [AugmentedText("always the same new film here", None, int(row)) for row in rows]


def make(folder: Path, *sources: TextSource) -> TransferTexts:
    recipe = AugmentConfig(shard_size=16, rules=RulesConfig(), filters=FilterConfig(near=1.0))
    augmentation = Sources(list(sources), {"seed": 0}, recipe, factories.single_task())
    return make_texts(augmentation, folder / "augment", size=2.0)


def test_an_interrupted_stage_resumes_and_makes_the_same_texts(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", RandomSource())
    with pytest.raises(Interrupted):
        make(tmp_path / "cut", RandomSource(stop_after=5))
    assert not (tmp_path / "cut" / "augment").exists()
    source = RandomSource()
    resumed = make(tmp_path / "cut", source)
    assert len(source.shards) == 12 - 5, "the five finished shards are used again"
    assert resumed.texts == whole.texts
    first = (tmp_path / "whole" / "augment" / "texts.arrow").read_bytes()
    second = (tmp_path / "cut" / "augment" / "texts.arrow").read_bytes()
    assert first == second
    assert read_stage(tmp_path / "whole" / "augment") == read_stage(tmp_path / "cut" / "augment")


def test_every_training_text_is_used_once_before_any_is_used_again(tmp_path: Path) -> None:
    source = RandomSource()
    make(tmp_path, source)
    rows = np.concatenate(source.shards)
    assert np.bincount(rows[:96]).tolist() == [1] * 96 and np.bincount(rows).tolist() == [2] * 96


def test_every_prefix_of_the_set_mixes_the_sources_evenly(tmp_path: Path) -> None:
    texts = make(tmp_path, RandomSource(), RandomSource(origin="replace"))
    assert len(texts) == 192
    for n in (10, 50, 192):
        assert texts.origins[:n].count("rules") == n // 2


def test_a_source_of_duplicates_ends_and_is_counted(tmp_path: Path) -> None:
    texts = make(tmp_path, ConstantSource())
    counts = read_stage(tmp_path / "augment").result["sources"]["rules"]
    assert len(texts) == counts["used"] == 1
    assert counts["rejected"] == {"duplicate": counts["produced"] - 1}
    table = map_table(tmp_path / "augment" / "texts.arrow")
    assert table.column("origin").to_pylist() == ["rules"]
    assert read_augmented_texts(tmp_path / "augment", factories.single_task()).texts == texts.texts


def test_a_half_written_shard_is_made_again(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", RandomSource())
    with pytest.raises(Interrupted):
        make(tmp_path / "cut", RandomSource(stop_after=2))
    part = tmp_path / "cut" / "augment.part"
    shutil.copy(part / "rules-00001.parquet", part / "rules-00002.part")
    assert make(tmp_path / "cut", RandomSource()).texts == whole.texts


class MarkedUpSource(RandomSource):
    """Produces texts with a tag each; every second one also has a web address."""

    def produce(self, rows: np.ndarray, rng: np.random.Generator) -> list[AugmentedText]:
        texts = []
        for i, text in enumerate(super().produce(rows, rng)):
            address = " www.example.org" if i % 2 else ""
            texts.append(AugmentedText(f"<p>{text.text}</p>{address}", None, text.row))
        return texts


def make_clean(folder: Path, source: TextSource, clean: tuple[str, ...]) -> TransferTexts:
    recipe = AugmentConfig(shard_size=16, rules=RulesConfig(), filters=FilterConfig(near=1.0))
    sources = Sources([source], {"seed": 0}, recipe, factories.single_task(), clean=clean)
    return make_texts(sources, folder / "augment", size=1.0)


def test_pools_and_generated_texts_are_cleaned_and_counted(tmp_path: Path) -> None:
    steps = ("html", "urls", "emoji", "spaces")
    for origin in ("pool", "generate"):
        texts = make_clean(tmp_path / origin, MarkedUpSource(origin=origin), steps)
        assert len(texts) == 96
        assert all("<" not in text and "www" not in text for text in texts.texts)
        counts = read_source_counts(tmp_path / origin / "augment")[origin]
        produced = counts.produced
        changed = {"html": produced, "urls": produced // 2, "emoji": 0, "spaces": produced}
        assert counts.cleaned == changed
        assert f"cleaning changed: html {produced}, urls" in counts.summary(origin, 1.0)


def test_rules_and_sources_without_cleaning_are_left_alone(tmp_path: Path) -> None:
    for name, origin, steps in (("rules", "rules", ("html",)), ("off", "pool", ())):
        texts = make_clean(tmp_path / name, MarkedUpSource(origin=origin), steps)
        assert all(text.startswith("<p>") for text in texts.texts)
        counts = read_source_counts(tmp_path / name / "augment")[origin]
        assert counts.cleaned == {} and "cleaning" not in counts.summary(origin, 1.0)


def test_both_texts_of_a_pair_are_cleaned() -> None:
    columns = [["<b>a</b>", "b"], ["c", "<i>d</i>"], [0, 1], [None, None]]
    shard = pa.table(columns, schema=TEXT_FIELDS.with_metadata({"attempts": "2"}))
    cleaned = cleaned_texts(shard, CountingCleaner(["html", "spaces"]))
    assert cleaned["text"].to_pylist() == ["a", "b"] and cleaned["pair"].to_pylist() == ["c", "d"]
    assert cleaned.schema == shard.schema and cleaned["row"].to_pylist() == [0, 1]
