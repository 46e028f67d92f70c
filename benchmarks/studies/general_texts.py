"""Write the texts of a general student: the training texts of several tasks, without labels.

Texts of any validation or test split are left out. That is necessary for TREC, whose test split is
a part of its training file.

    python benchmarks/studies/general_texts.py runs/general-texts
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click

from kdedge.data import load_task
from kdedge.data.task import Split
from kdedge.io.tabular import read_table
from kdedge.recipe import load_recipe

RECIPES = Path(__file__).parent / "recipes"
TASKS = ("trec", "cola", "sst2", "mrpc", "rte", "stsb")
MORE = Path("../shared/data/subj/train.parquet")
"""Texts of a task without a recipe."""

Row = tuple[str, ...]
"""A text, or the two texts of a pair."""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def study(folder: Path) -> None:
    """Write FOLDER/texts.jsonl and FOLDER/pairs.jsonl. Run it in the repository root."""
    more = read_table(MORE, ["text"]).columns["text"]
    train: dict[Row, None] = dict.fromkeys((text,) for text in more)
    held_out: set[Row] = set()
    for name in TASKS:
        recipe = load_recipe(RECIPES / f"base-{name}.toml")
        task = load_task(recipe.data, recipe.task, name=name, seed=recipe.seed)
        train |= dict.fromkeys(rows_of(task.train))
        held_out |= {*rows_of(task.validation), *rows_of(task.test)}
    texts = [row for row in train if row not in held_out]
    folder.mkdir(parents=True, exist_ok=True)
    for file, length in (("texts.jsonl", 1), ("pairs.jsonl", 2)):
        rows = [row for row in texts if len(row) == length]
        write_rows(folder / file, rows)
        print(f"{folder / file}: {len(rows):,} rows")


def rows_of(split: Split) -> list[Row]:
    """Return the texts or pairs of a split."""
    if split.pairs is None:
        return [(text,) for text in split.texts]
    return list(zip(split.texts, split.pairs, strict=True))


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write texts with the columns `text` and, for pairs, `pair`."""
    with file.open("w", encoding="utf-8") as stream:
        for row in rows:
            document = dict(zip(("text", "pair"), row, strict=False))
            stream.write(json.dumps(document, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    study()
