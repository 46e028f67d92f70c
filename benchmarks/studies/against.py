"""How often does `kdedge bench --against` err? The same model against itself, and a slower one.

    python benchmarks/studies/against.py runs/quickstart/tinybert/bundle texts.csv

Results of the scenario `gate` are made in turns: one of the bundle as it is, one of the bundle
with a spin of a tenth of its p50 in front of every text. Each is compared with the plain result
before it, 20 times. The study also times an empty subject, which is the harness alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from kdedge.benchmarks.child import Answer, items_of, loader_of, run_child
from kdedge.benchmarks.examples import read_examples
from kdedge.benchmarks.scenarios.gate import PROCESSES, TEXTS, time_rounds
from kdedge.benchmarks.scenarios.process_ratio import compare_processes, verdict_of
from kdedge.benchmarks.scenarios.series import Series
from kdedge.benchmarks.studies._machine_line import machine_line
from kdedge.benchmarks.subjects import Runner
from kdedge.benchmarks.work import Batch, single_work, take

from kdedge.evaluation.timing import TimingPlan, interleave, representative
from kdedge.runtime import Bundle

COMPARISONS = 20
SLOW_DOWN = 0.1
"""The spin as a share of p50."""

SECONDS = 0.3
"""Time of the rounds in each process."""


def main(work: Mapping[str, Any]) -> None:
    """Run in a child: time the bundle with a spin in front of every text."""
    answer = _slowed(loader_of(work["job"])(work["job"]), work["delay"])
    sys.stdout.write(json.dumps(time_rounds(answer, items_of(work), work["seconds"])) + "\n")


def study(bundle: Path, data: Path, comparisons: int = COMPARISONS, raw: Path | None = None) -> str:
    """Compare results of one bundle; return the table, and write raw values to `raw`."""
    job = {
        "form": "onnx",
        "folder": str(bundle.resolve()),
        "precision": "int8",
        "provider": "cpu",
        "threads": 1,
    }
    examples = read_examples(data, Bundle.open(bundle).manifest.spec)
    texts = take(examples, representative(examples.lengths, TEXTS, 0))
    before = _result(job, texts, 0.0)
    p50 = float(np.median(np.concatenate([each.values for each in before[::2]])))
    results = [before]
    rows: dict[str, list[tuple[float, float, float, float]]] = {"itself": [], "slower": []}
    for number in range(comparisons):
        slow = _result(job, texts, SLOW_DOWN * p50)
        again = _result(job, texts, 0.0)
        rows["slower"].append(compare_processes(before, slow))
        rows["itself"].append(compare_processes(before, again))
        print(number + 1, rows["itself"][-1], rows["slower"][-1], file=sys.stderr, flush=True)
        before = again
        results += [slow, again]
        if raw is not None:
            documents = [[each.to_json() for each in result] for result in results]
            raw.write_text(json.dumps(documents))
    lines = [
        machine_line(),
        f"p50 {1e6 * p50:.0f} µs; {PROCESSES} processes, {TEXTS} texts, {comparisons} comparisons.",
        "",
        "| new result | verdicts | median ratio | range of ratios | widest interval | machine |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    lines += [_row(name, entries) for name, entries in rows.items()]
    recorded, whole = overhead()
    lines += ["", f"Empty subject: {recorded:.2f} µs recorded, {whole:.2f} µs of the loop, a call."]
    return "\n".join(lines)


def overhead() -> tuple[float, float]:
    """Return the microseconds per call of an empty subject: recorded, and of the whole loop."""
    empty = Runner(lambda texts, pairs: texts, lambda encoded: encoded)
    items: list[Batch] = [(["text"], None)] * 100
    plan = TimingPlan(rounds=2000, visit=8)
    start = perf_counter()
    timed = interleave({"empty": single_work(empty, items)}, len(items), plan)
    seconds = perf_counter() - start
    values = timed["empty"][0].values
    return 1e6 * float(np.median(values)), 1e6 * seconds / len(values)


def _result(job: Mapping[str, Any], texts: Batch, delay: float) -> list[Series]:
    """Make the series of one subject as the scenario `gate` does, with a delay."""
    series = []
    more = {"seconds": SECONDS, "delay": delay}
    for process in range(PROCESSES):
        document = run_child("kdedge.benchmarks.studies.against", job, *texts, more)
        for part in ("text", "yardstick"):
            values = np.array(document[part], dtype=float)
            series.append(Series("gate", "subject", values, at=process, part=part))
    return series


def _slowed(answer: Answer, delay: float) -> Answer:
    """Spin before every answer; without a delay, return the answer itself."""
    if not delay:
        return answer

    def slowed(texts: list[str], pairs: list[str] | None) -> Any:
        end = perf_counter() + delay
        while perf_counter() < end:
            pass
        return answer(texts, pairs)

    return slowed


def _row(name: str, entries: Sequence[tuple[float, float, float, float]]) -> str:
    ratios = [ratio for ratio, _, _, _ in entries]
    widest = max(high - low for _, low, high, _ in entries)
    machine = [yard for _, _, _, yard in entries]
    counts = Counter(verdict_of(low, high) for _, low, high, _ in entries)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    return (
        f"| {name} | {verdicts} | {np.median(ratios):.3f} | {min(ratios):.3f}–{max(ratios):.3f}"
        f" | {widest:.3f} | {min(machine):.3f}–{max(machine):.3f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--comparisons", type=int, default=COMPARISONS)
    parser.add_argument("--raw", type=Path, help="file for the raw values")
    arguments = parser.parse_args()
    print(study(arguments.bundle, arguments.data, arguments.comparisons, arguments.raw))
