"""A classifier that serves for long: its memory does not grow, and threads do not disturb it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import factories
import pytest
from kdedge_process import ROOT

from kdedge.runtime import Classifier

GROWTH = 5_000_000
"""Bytes that the memory of a process may grow after its first predictions."""

PROGRAM = """
import json, random, sys
sys.path[:0] = {path!r}
import conftest
from kdedge.runtime import Classifier

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096

classifier = Classifier.load({bundle!r}, "int8", threads=1)
chance = random.Random(0)
words = "the film was good bad great awful long plot actors music 好 émue 👍".split()
# Without a limit, the list of words itself would need gigabytes.
most = 1_000
measured = {{}}
for number in range(1, {count} + 1):
    length = min(int(chance.paretovariate(0.6)), most)
    classifier.predict(" ".join(chance.choices(words, k=length)))
    if number in ({first}, {count}):
        measured[number] = resident()
print(json.dumps(measured))
"""


@pytest.mark.parametrize(
    ("first", "count"),
    [(1_000, 3_000), pytest.param(10_000, 50_000, marks=pytest.mark.soak)],
    ids=["3000", "50000"],
)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc of Linux")
def test_memory_does_not_grow_with_the_predictions(first: int, count: int) -> None:
    bundle = str(factories.tiny_bundle())
    program = PROGRAM.format(
        path=[str(ROOT), str(ROOT / "tests")], bundle=bundle, first=first, count=count
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    growth = measured[str(count)] - measured[str(first)]
    sys.stdout.write(f"{count:,} predictions: {growth / 1e6:.2f} MB more than after {first:,}\n")
    assert growth < GROWTH


@pytest.mark.parametrize(
    "count", [60, pytest.param(500, marks=pytest.mark.soak)], ids=["60", "500"]
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_sixteen_threads_get_the_predictions_of_one(precision: str, count: int) -> None:
    classifier = Classifier.load(factories.tiny_bundle(), precision, threads=1)
    texts = factories.single_task().test.texts
    expected = [classifier.predict(text) for text in texts]

    def count_wrong(seed: int) -> int:
        chance = random.Random(seed)
        wrong = 0
        for _ in range(count):
            row = chance.randrange(len(texts))
            wrong += classifier.predict(texts[row]) != expected[row]
        return wrong

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(count_wrong, range(16))) == 0
