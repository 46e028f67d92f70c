"""Two benches compared: what must agree, the tests of time and score, and the command."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factories
import numpy as np
import pytest
from click.testing import CliRunner
from kdedge.benchmarks import child
from kdedge.benchmarks.against import check_same_conditions, compare, read_earlier
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.report import Report, one_line
from kdedge.benchmarks.scenarios.gate import PROCESSES, _right_texts, time_rounds
from kdedge.benchmarks.scenarios.process_ratio import (
    compare_processes,
    rank_sum_limit,
    shift_interval,
    verdict_of,
)
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.workload import Workload
from reports import report
from scipy import stats

from kdedge.cli.bench import bench
from kdedge.errors import CheckFailed, UsageError
from kdedge.runtime.spec import TaskSpec

TEXTS, ROUNDS = 6, 9


def processes(key: str, seconds: float, *, seed: int, noise: float = 0.02, count: int = 7) -> Any:
    """Make the series of a gate: each process has its own level, which the yardstick shares."""
    generator = np.random.default_rng(seed)
    lengths = np.linspace(0.5, 2, TEXTS)
    series = []
    for process in range(count):
        level = generator.lognormal(0, noise)
        drift = generator.lognormal(0, noise)
        each = seconds * level * drift * lengths * generator.lognormal(0, 0.01, (ROUNDS, TEXTS))
        series.append(Series("gate", key, each.ravel(), at=process, part="text"))
        yard = 1e-4 * drift * generator.lognormal(0, 0.01, ROUNDS)
        series.append(Series("gate", key, yard, at=process, part="yardstick"))
    return series


# The tests


@pytest.mark.parametrize("m, n", [(3, 3), (5, 5), (7, 7), (7, 5), (10, 10)])
def test_the_limit_is_that_of_the_rank_sum_test(m: int, n: int) -> None:
    limit = rank_sum_limit(m, n)

    def chance(most: int) -> float:
        """Estimate how many random orders reverse at most `most` pairs."""
        generator = np.random.default_rng(0)
        draws = np.argsort(generator.random((200_000, m + n)), axis=1)[:, :m].sum(1)
        return float(np.mean(draws - m * (m - 1) / 2 <= most))

    if limit >= 0:
        assert chance(limit) <= 0.005 * 1.15
    assert chance(limit + 1) > 0.005 * 0.85


def test_the_interval_is_the_inverse_of_the_rank_sum_test() -> None:
    """A shift inside the interval is not rejected by scipy's exact test; one outside is."""
    generator = np.random.default_rng(5)
    a, b = generator.normal(0.3, 1, 7), generator.normal(0, 1, 7)
    middle, low, high = shift_interval(a, b)
    assert middle == pytest.approx(np.median([x - y for x in a for y in b]))

    def p_value(shift: float) -> float:
        return float(stats.mannwhitneyu(a - shift, b, method="exact").pvalue)

    for inside in (low + 1e-9, high - 1e-9):
        assert p_value(inside) > 0.01
    for outside in (low - 1e-9, high + 1e-9):
        assert p_value(outside) <= 0.01


def test_one_disturbed_process_does_not_widen_the_interval() -> None:
    generator = np.random.default_rng(8)
    a, b = generator.normal(0, 0.01, 10), generator.normal(0, 0.01, 10)
    a[3], b[5] = 1.0, 1.0
    _, low, high = shift_interval(a, b)
    assert -0.05 < low < high < 0.05


def test_too_few_processes_have_no_interval() -> None:
    _, low, high = shift_interval(np.array([1.0, 2.0]), np.array([5.0, 6.0]))
    assert (low, high) == (-math.inf, math.inf)
    assert verdict_of(0.0, math.inf) == "inconclusive"


def test_the_interval_covers_the_truth_in_99_of_100_trials() -> None:
    generator = np.random.default_rng(6)
    covered = 0
    for _ in range(2000):
        _, low, high = shift_interval(generator.normal(1, 1, 7), generator.normal(0, 1, 7))
        covered += low <= 1 <= high
    assert covered >= 0.985 * 2000


def test_the_whole_interval_must_be_beyond_a_relevant_change() -> None:
    assert verdict_of(1.06, 1.14) == "slower"
    assert verdict_of(0.87, 0.93) == "faster"
    assert verdict_of(1.01, 1.045) == "no difference"
    assert verdict_of(0.96, 1.04) == "no difference"
    assert verdict_of(1.02, 1.12) == "inconclusive"
    assert verdict_of(0.9, 1.12) == "inconclusive"


def simulate(factor: float, trials: int = 200) -> list[str]:
    """Compare simulated benches whose machine has become 8 % slower meanwhile."""
    verdicts = []
    for trial in range(trials):
        old = processes("a", 1e-3, seed=2 * trial, count=PROCESSES)
        new = []
        for each in processes("a", 1e-3 * factor, seed=2 * trial + 1, count=PROCESSES):
            new.append(replace(each, values=1.08 * each.values))
        _, low, high, machine = compare_processes(old, new)
        assert machine == pytest.approx(1.08, rel=0.06)
        verdicts.append(verdict_of(low, high))
    return verdicts


def test_a_slower_machine_is_no_slower_model() -> None:
    verdicts = simulate(1.0)
    assert verdicts.count("slower") + verdicts.count("faster") <= 0.02 * len(verdicts)


def test_a_tenth_is_found() -> None:
    assert simulate(1.1).count("slower") >= 0.95 * 200
    assert simulate(1 / 1.1).count("faster") >= 0.9 * 200


def test_quantiles_are_paired_by_text() -> None:
    """A loop over processes and texts gives the same ratio."""
    old = processes("a", 1e-3, seed=1)
    new = processes("a", 1.2e-3, seed=2)
    ratio = compare_processes(old, new)[0]

    def levels(series: Sequence[Series]) -> list[list[float]]:
        found = []
        for text, yard in zip(series[::2], series[1::2], strict=True):
            rounds = text.values.reshape(ROUNDS, TEXTS)
            scale = np.percentile(yard.values, 10)
            found.append([float(np.percentile(rounds[:, k], 10) / scale) for k in range(TEXTS)])
        return found

    one, two = levels(old), levels(new)
    differences = []
    for b in two:
        for a in one:
            differences.append(np.median(np.log(b)) - np.median(np.log(a)))
    assert ratio == pytest.approx(math.exp(float(np.median(differences))), rel=0.01)


# What must agree


def with_gate(seconds: float = 1e-3, *, seed: int = 0, right: float = 0.9) -> Report:
    example = report()
    series: list[Series] = []
    for row in example.rows[2:4]:
        series += processes(row.key, seconds, seed=seed)
        values = (np.arange(500) < right * 500).astype(float)
        series.append(Series("gate", row.key, values, part="right", unit="1"))
    task = {**example.task, "digest": "d" * 64}
    return replace(example, task=task, scenarios=ScenarioResults(tuple(series)))


def write(folder: Path, example: Report) -> Path:
    path = folder / "old.json"
    path.write_text(one_line(example) + "\n")
    return path


def test_equal_conditions_can_be_compared(tmp_path: Path) -> None:
    old = with_gate()
    earlier = read_earlier(write(tmp_path, old))
    check_same_conditions(earlier, old.machine, old.kdedge, "d" * 64)


@pytest.mark.parametrize(
    "key, value", [("cpu", "another"), ("threads", 2), ("python", "3.0"), ("flags", ["sve"])]
)
def test_other_conditions_are_named(tmp_path: Path, key: str, value: Any) -> None:
    old = with_gate()
    earlier = read_earlier(write(tmp_path, old))
    with pytest.raises(UsageError, match="only if machine, threads, versions and data") as caught:
        check_same_conditions(earlier, {**old.machine, key: value}, old.kdedge)
    assert key in caught.value.detail and len(caught.value.detail.splitlines()) == 1


def test_another_version_and_other_texts_are_named(tmp_path: Path) -> None:
    old = with_gate()
    earlier = read_earlier(write(tmp_path, old))
    packages = {**old.machine["packages"], "onnxruntime": "0.1"}
    with pytest.raises(UsageError) as caught:
        check_same_conditions(earlier, {**old.machine, "packages": packages}, "9", "e" * 64)
    for words in ("version of onnxruntime", "version of kdedge", "texts and labels"):
        assert words in caught.value.detail


def test_a_file_without_values_to_compare_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    for content in ("{}", "no json", '{"created": 1}', "[]"):
        path.write_text(content)
        with pytest.raises(UsageError, match="needs the report"):
            read_earlier(path)
    path.write_text(one_line(replace(report(), task={**report().task, "digest": "d"})) + "\n")
    with pytest.raises(UsageError, match="no values to compare") as caught:
        read_earlier(path)
    assert "--scenario gate" in caught.value.hint


@pytest.mark.parametrize(
    "damage",
    [
        lambda series: series[0].update(values=[]),
        lambda series: series[0].update(values=series[0]["values"][:40]),
        lambda series: [each.update(values=[0.0] * len(each["values"])) for each in series],
        lambda series: [each.update(values=[None] * len(each["values"])) for each in series],
        lambda series: [each.update(unit="ms") for each in series],
        lambda series: [each.update(at=0) for each in series if each["part"] == "yardstick"],
        lambda series: series[:] and series.__setitem__(slice(None), series[:1]),
    ],
)
def test_damaged_values_are_refused_before_the_bench(
    tmp_path: Path, damage: Callable[[list[dict[str, Any]]], object]
) -> None:
    path = write(tmp_path, with_gate())
    document = json.loads(path.read_text())
    damage(document["scenarios"]["series"])
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="needs the report"):
        read_earlier(path)


# Comparisons of reports


def test_every_subject_of_both_is_compared(tmp_path: Path) -> None:
    old, new = with_gate(seed=1), with_gate(1.2e-3, seed=9)
    comparison = compare(new, read_earlier(write(tmp_path, old)))
    assert [change.verdict for change in comparison.changes] == ["slower", "slower"]
    assert [change.score_verdict for change in comparison.changes] == ["no difference"] * 2
    with pytest.raises(CheckFailed, match="worse than the earlier") as caught:
        comparison.raise_if_regressed()
    assert "slower" in caught.value.detail
    page = html_page(replace(new, comparison=comparison))
    assert "Against the earlier bench" in page and "slower" in page
    document = json.loads(one_line(replace(new, comparison=comparison)))
    assert document["against"]["changes"][0]["verdict"] == "slower"


def test_a_worse_score_is_a_regression(tmp_path: Path) -> None:
    old, new = with_gate(seed=1), with_gate(seed=2, right=0.8)
    comparison = compare(new, read_earlier(write(tmp_path, old)))
    assert [change.score_verdict for change in comparison.changes] == ["worse", "worse"]
    with pytest.raises(CheckFailed):
        comparison.raise_if_regressed()
    better = compare(old, read_earlier(write(tmp_path, new)))
    assert {change.score_verdict for change in better.changes} == {"better"}
    better.raise_if_regressed()


def test_a_set_of_labels_is_right_as_a_whole() -> None:
    spec = TaskSpec("toy", "multilabel", ("a", "b"), "accuracy", pair=False)
    examples = Examples(["x", "y"], labels=np.array([[1.0, 0.0], [1.0, 1.0]]))
    subject: Any = SimpleNamespace(logits=np.array([[9.0, -9.0], [9.0, -9.0]]))
    right = _right_texts(Workload({}, examples, Options(), spec=spec), subject)
    assert right is not None and right.tolist() == [1, 0]


@pytest.mark.parametrize(("metric", "compared"), [("accuracy", True), ("f1", False)])
def test_right_answers_are_compared_for_accuracy_alone(metric: str, *, compared: bool) -> None:
    """With rare labels, F1 may fall to 0 while as many answers are right."""
    spec = TaskSpec("toy", "classification", ("a", "b"), metric, pair=False)
    examples = Examples(["x", "y"], labels=np.array([0, 1]))
    subject: Any = SimpleNamespace(logits=np.eye(2))
    right = _right_texts(Workload({}, examples, Options(), spec=spec), subject)
    assert (right is not None) is compared


def test_subjects_of_one_bench_alone_are_listed(tmp_path: Path) -> None:
    old, new = with_gate(seed=1), with_gate(seed=2)
    key = old.rows[3].key
    kept = [each for each in new.scenarios.series if each.subject != key]
    fewer = replace(new, scenarios=ScenarioResults(tuple(kept)))
    comparison = compare(fewer, read_earlier(write(tmp_path, old)))
    assert comparison.only_old == (key,) and len(comparison.changes) == 1
    with pytest.raises(CheckFailed, match=rf"(?s)does not run any more.*{re.escape(key)}"):
        comparison.raise_if_regressed()
    rows = tuple(row for row in fewer.rows if row.key != key)
    compare(replace(fewer, rows=rows), read_earlier(write(tmp_path, old))).raise_if_regressed()
    with pytest.raises(UsageError, match="no subject in common"):
        compare(replace(new, scenarios=ScenarioResults()), read_earlier(write(tmp_path, old)))


# The harness and the command


def test_the_rounds_of_a_child_hold_every_text_and_the_yardstick() -> None:
    calls: list[str] = []

    def answer(texts: list[str], pairs: list[str] | None) -> None:
        calls.append(texts[0])

    items: list[tuple[list[str], list[str] | None]] = [(["a"], None), (["b"], None)]
    document = time_rounds(answer, items, seconds=0.0)
    rounds = len(document["yardstick"])
    assert rounds == 20 and len(document["text"]) == 2 * rounds
    assert calls == ["a", "b"] * (rounds + 1), "one round warms up"


@pytest.fixture(scope="module")
def old_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("against")
    texts, labels = factories.sentences(40, seed=3)
    data = folder / "texts.csv"
    names = [("bad", "good")[label] for label in labels]
    rows = [f"{text},{name}" for text, name in zip(texts, names, strict=True)]
    data.write_text("text,label\n" + "\n".join(rows) + "\n")
    out = folder / "old"
    run_bench(data, "--scenario", "gate", "--out", str(out))
    return data, out / "report.json", folder


def run_bench(data: Path, *arguments: str) -> Any:
    bundle = str(factories.tiny_bundle("bilstm"))
    return CliRunner().invoke(
        bench, [bundle, "--data", str(data), "--seconds", "0.3", *arguments], terminal_width=80
    )


@pytest.mark.slow
def test_the_command_is_a_gate(
    old_report: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, path, folder = old_report
    same = run_bench(data, "--against", str(path), "--out", str(folder / "same"))
    document = json.loads((folder / "same" / "report.json").read_text())
    assert document["against"]["changes"] and document["settings"]["scenarios"][1] == "gate"
    slower = [change["verdict"] == "slower" for change in document["against"]["changes"]]
    assert (same.exit_code == 0) == (not any(slower))
    monkeypatch.setattr(child, "LOADER", SLOW_LOADER)
    slow = run_bench(data, "--against", str(path), "--out", str(folder / "slow"))
    assert isinstance(slow.exception, CheckFailed) and slow.exception.exit_code == 1
    assert "slower" in slow.exception.detail and "Against the earlier bench" in slow.stdout


SLOW_LOADER = child.LOADER.replace(
    "importlib.import_module(work",
    """
import time
from kdedge.runtime import Classifier
run = Classifier.run

def slow(self, encoded):
    end = time.perf_counter() + 2e-3
    while time.perf_counter() < end:
        pass
    return run(self, encoded)

Classifier.run = slow
importlib.import_module(work""",
)


@pytest.mark.slow
def test_the_command_refuses_other_conditions(old_report: tuple[Path, Path, Path]) -> None:
    data, path, folder = old_report
    threads = run_bench(data, "--against", str(path), "--threads", "2")
    assert isinstance(threads.exception, UsageError) and threads.exception.exit_code == 2
    assert "threads: 1 there, 2 here" in threads.exception.detail
    other = folder / "other.csv"
    other.write_text(data.read_text() + "another text,good\n")
    changed = run_bench(other, "--against", str(path))
    assert isinstance(changed.exception, UsageError)
    assert "texts and labels" in changed.exception.detail
    replaced = run_bench(data, "--against", str(path), "--out", str(path.parent))
    assert isinstance(replaced.exception, UsageError)
    assert "would replace" in replaced.exception.message
