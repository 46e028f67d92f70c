"""Write a pool of real pairs of sentences: the training pairs of four tasks, without labels.

kdedge leaves out the pairs that a task has already, and those near its validation and test texts.

    python benchmarks/studies/pair_pool.py runs/pairs.jsonl
"""

from __future__ import annotations

import random
from pathlib import Path

import click
from kdedge.benchmarks.studies.general_texts import Row, write_rows

from kdedge.io.tabular import read_table

TASKS = ("mrpc", "rte", "stsb", "sick_nli")
DATA = Path("../shared/data")
COLUMNS = ("sentence1", "sentence2")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def study(file: Path) -> None:
    """Write FILE, a jsonl file, in a fixed random order. Run it in the repository root."""
    pairs: dict[Row, None] = {}
    for task in TASKS:
        table = read_table(DATA / task / "train.parquet", COLUMNS)
        first, second = (table.columns[column] for column in COLUMNS)
        pairs |= dict.fromkeys(zip(first, second, strict=True))
    rows = list(pairs)
    random.Random(0).shuffle(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_rows(file, rows)
    print(f"{file}: {len(rows):,} pairs")


if __name__ == "__main__":
    study()
