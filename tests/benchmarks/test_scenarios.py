"""Scenarios: their statistics against second implementations, and whole runs on a tiny bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest
from browser import measure, require_chromium, screenshot
from click.testing import CliRunner
from kdedge.benchmarks import child
from kdedge.benchmarks.bench import bench_bundle
from kdedge.benchmarks.changes import Change, Comparison
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.scenarios import cold, energy, lengths
from kdedge.benchmarks.scenarios import load as offered
from kdedge.benchmarks.scenarios.mlperf import (
    bounded_percentile,
    queries_for,
    queries_without_early_stopping,
)
from kdedge.benchmarks.scenarios.names import SCENARIOS, scenario_names
from kdedge.benchmarks.scenarios.series import ScenarioResults, Series
from kdedge.benchmarks.scenarios.tables import scenario_tables
from kdedge.benchmarks.scenarios.threads import thread_counts
from PIL import Image
from scipy import stats

from kdedge.cli.bench import bench
from kdedge.errors import UsageError

KEY = "a onnx int8 CPUExecutionProvider"


# How many queries a percentile needs


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.97, 0.99])
def test_the_queries_of_a_percentile_are_those_of_the_binomial_test(percentile: float) -> None:
    needed = queries_for(percentile)
    assert stats.binom.cdf(1, needed, 1 - percentile) <= 0.01
    assert stats.binom.cdf(1, needed - 1, 1 - percentile) > 0.01


def test_the_queries_are_those_in_the_rules_of_mlperf() -> None:
    assert (queries_for(0.9), queries_for(0.99)) == (64, 662)
    counts = {p: queries_without_early_stopping(p) for p in (0.9, 0.95, 0.97, 0.99)}
    assert counts == {0.9: 23_886, 0.95: 50_425, 0.97: 85_811, 0.99: 262_742}


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [64, 662, 1024, 2000])
def test_a_bound_is_the_largest_rank_that_the_binomial_test_allows(
    percentile: float, count: int
) -> None:
    values = np.random.default_rng(count).permutation(np.arange(count, dtype=float))
    allowed = [t for t in range(1, count) if stats.binom.cdf(t, count, 1 - percentile) <= 0.01]
    bound = bounded_percentile(values, percentile)
    assert bound == (np.sort(values)[-max(allowed)] if allowed else None)


def test_a_bound_holds_in_99_of_100_trials() -> None:
    """The 90 % percentile of an exponential distribution is ln 10."""
    generator = np.random.default_rng(0)
    trials = [bounded_percentile(generator.exponential(1, 200), 0.9) for _ in range(2000)]
    below = np.mean([bound is not None and bound < np.log(10) for bound in trials])
    assert below <= 0.015


# Offered load


class FakeTime:
    """A clock that only waiting and answering move."""

    def __init__(self) -> None:
        self.now = 5.0

    def clock(self) -> float:
        return self.now

    def wait(self, moment: float) -> None:
        self.now = max(self.now, moment)


def test_latency_counts_from_the_scheduled_arrival() -> None:
    """Lindley's recursion gives the waiting time of every request of a queue with one server."""
    service = np.random.default_rng(1).exponential(0.01, 400)
    due = offered.arrivals(80, 400, seed=2)
    fake = FakeTime()

    def answer(number: int) -> None:
        fake.now += service[number]

    latency, measured = offered.serve_arrivals(answer, due, clock=fake.clock, wait=fake.wait)
    waiting = 0.0
    for number in range(400):
        if number:
            gap = due[number] - due[number - 1]
            waiting = max(0.0, waiting + service[number - 1] - gap)
        assert latency[number] == pytest.approx(waiting + service[number])
    assert measured == pytest.approx(service)
    assert latency.mean() > 2 * service.mean(), "requests wait behind each other"


def test_one_slow_answer_delays_the_requests_behind_it() -> None:
    """A closed loop would show one slow request; here all that arrived meanwhile are late."""
    due = np.arange(1, 11) * 0.01
    fake = FakeTime()

    def answer(number: int) -> None:
        fake.now += 0.055 if number == 0 else 0.001

    latency, _ = offered.serve_arrivals(answer, due, clock=fake.clock, wait=fake.wait)
    assert (latency > 0.009).sum() == 6


def test_arrivals_are_a_poisson_process() -> None:
    due = offered.arrivals(200, 20_000, seed=3)
    gaps = np.diff(due, prepend=0)
    assert stats.kstest(gaps, "expon", args=(0, 1 / 200)).pvalue > 0.01
    counts = np.histogram(due, np.arange(0, 90, 1.0))[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.35)
    assert (offered.arrivals(200, 50, seed=3) == due[:50]).all()


def test_the_number_of_requests_has_limits() -> None:
    counts = [offered.request_count(rate, 2.0) for rate in (1.0, 300.0, 1e6)]
    assert counts == [100, 600, 5000]


# Energy


def write_zone(folder: Path, name: str, label: str, microjoules: int) -> Path:
    zone = folder / name
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{label}\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    return zone


def test_the_packages_of_the_processor_are_read(tmp_path: Path) -> None:
    zone = write_zone(tmp_path, "intel-rapl:0", "package-0", 3_000_000)
    write_zone(tmp_path, "intel-rapl:0:0", "core", 1_000_000)
    write_zone(tmp_path, "intel-rapl:1", "psys", 9_000_000)
    counters, _ = energy.rapl_counters(tmp_path)
    assert [counter.name for counter in counters] == ["package-0"]
    texts = 0

    def work(item: int) -> None:
        nonlocal texts
        texts += 1
        (zone / "energy_uj").write_text(str(3_000_000 + 20_000 * texts))

    joules = energy.joules_per_text(work, 4, counters, seconds=0.0)
    assert joules == {"package-0": pytest.approx(0.02)}


def test_a_counter_may_wrap_once() -> None:
    counter = energy.Counter("package-0", lambda: 0.0, wraps_at=100.0)
    assert counter.spent(95.0, 3.0) == pytest.approx(8.0)
    assert counter.spent(3.0, 95.0) == pytest.approx(92.0)


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    assert energy.rapl_counters(tmp_path) == ([], [f"RAPL: no zone in {tmp_path}"])
    zone = write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (zone / "energy_uj").unlink()
    counters, reasons = energy.rapl_counters(tmp_path)
    assert not counters and "RAPL: " in reasons[0]


# Names and tables


def test_names_are_put_in_order() -> None:
    assert scenario_names(["load,cold"]) == ("single", "load", "cold")
    assert scenario_names("cold") == ("single", "cold")
    assert scenario_names(["all"]) == tuple(SCENARIOS)
    with pytest.raises(UsageError, match="no such scenario") as caught:
        scenario_names(["cald"])
    with pytest.raises(UsageError, match="list of names"):
        scenario_names(5)  # type: ignore[arg-type]
    assert caught.value.hint == "did you mean cold?"


def test_thread_counts_end_at_the_cores() -> None:
    assert [thread_counts(cores) for cores in (1, 2, 4, 6)] == [
        [1],
        [1, 2],
        [1, 2, 4],
        [1, 2, 4, 6],
    ]


def series(scenario: str, **more: Any) -> Series:
    values = np.random.default_rng(4).lognormal(-7, 0.3, 1024)
    return Series(scenario, KEY, values, **more)


def test_tables_hold_statistics_of_the_raw_values() -> None:
    measured = (
        series("stream"),
        series("offline", at=16),
        series("load", at=500.0, part="latency"),
        replace(series("load", at=500.0, part="service"), values=np.full(1024, 1e-3)),
        series("cold", part="total"),
        series("energy", part="package-0", unit="J"),
    )
    tables = {each.name: each for each in scenario_tables(ScenarioResults(measured), {KEY: "A"})}
    values = measured[0].values
    p50, p90, p99 = np.percentile(values, [50, 90, 99]) * 1e6
    stream = tables["stream"].rows[0]
    assert stream[:2] == ("A", "1,024")
    assert stream[2:5] == (f"{p50:.0f} µs", f"{p90 / 1e3:.2f} ms", f"{p99 / 1e3:.2f} ms")
    assert tables["offline"].rows[0][1] == f"{16 / np.median(values):,.0f}"
    assert tables["load"].rows[0][1:3] == ("500", "50 %")
    assert tables["energy"].rows[0][1] == f"{1e3 * np.median(values):.3g} mJ"
    assert tables["cold"].header == ("subject", "total")


def test_a_missing_value_is_a_dash() -> None:
    measured = (series("threads", at=1), Series("threads", "b", np.ones(3), at=2))
    (table,) = scenario_tables(ScenarioResults(measured), {})
    assert table.header == ("subject", "threads: 1", "threads: 2")
    assert table.rows[0][2] == "–" and table.rows[1][1] == "–"


def test_results_survive_json() -> None:
    measured = ScenarioResults((series("load", at=3.5, part="latency"),), ("a note",))
    again = ScenarioResults.from_json(json.loads(json.dumps(measured.to_json())))
    assert again.notes == measured.notes
    assert again.series[0].values == pytest.approx(measured.series[0].values, rel=1e-6)
    assert (again.series[0].at, again.series[0].part) == (3.5, "latency")


def test_pieces_have_the_wanted_length() -> None:
    items = lengths.pieces(Examples(["ab cd", "efg"]), 40)
    assert {len(texts[0]) for texts, _ in items} == {40}
    pairs = lengths.pieces(Examples(["ab cd"], ["x yz"]), 40)
    assert all(second is not None and len(second[0]) == 20 for _, second in pairs)


def test_the_longest_texts_just_reach_what_the_tokenizer_keeps() -> None:
    """Longer texts would take time to tokenize that the model never reads."""

    def encode(texts: list[str], _: Any) -> dict[str, Any]:
        return {"input_ids": [texts[0][:100]]}

    cases = lengths._cases(Examples(["abcdefgh" * 20]), encode)
    assert {tokens: len(items[0][0][0]) for tokens, items in cases.items()} == {
        16: 16,
        32: 32,
        64: 64,
        100: 100,
    }


# On a tiny bundle


@pytest.fixture(scope="module")
def whole() -> Report:
    texts, labels = factories.sentences(60, seed=3)
    examples = Examples(list(texts), labels=labels)
    options = Options(seconds=0.3, batch=4, scenarios=tuple(SCENARIOS))
    return bench_bundle([factories.tiny_bundle()], options=options, examples=examples)


@pytest.mark.slow
def test_every_scenario_is_measured(whole: Report) -> None:
    keys = {row.key for row in whole.rows}
    for name in SCENARIOS:
        found = whole.scenarios.of(name)
        if name == "single":
            continue
        if name == "energy" and not found:
            assert any("not readable here" in note for note in whole.scenarios.notes)
            continue
        assert {each.subject for each in found} - {""} == keys, name
        timed = [each for each in found if each.unit == "s"]
        assert all((each.values > 0).all() for each in timed), name
    assert {len(each.values) for each in whole.scenarios.of("stream")} == {1024}
    assert {each.part for each in whole.scenarios.of("cold")} == set(cold.PARTS)
    tokens = [each.at for each in whole.scenarios.of("lengths")]
    assert max(float(at or 0) for at in tokens) == factories.BUNDLE_MAX_LENGTH


@pytest.mark.slow
def test_a_cold_start_is_the_sum_of_its_parts(whole: Report) -> None:
    parts = {each.part: each.values for each in whole.scenarios.of("cold")}
    total = parts["start"] + parts["load"] + parts["answer"]
    assert parts["total"] == pytest.approx(total, abs=1e-3)


@pytest.mark.slow
def test_the_report_has_every_table_and_all_raw_values(whole: Report) -> None:
    page = html_page(whole)
    for name in ("Single stream", "Offline", "Offered load", "Cold start", "Threads", "Length"):
        assert f">{name}</h2>" in page
    document = json.loads(json.dumps(whole.to_json()))
    assert len(document["scenarios"]["series"]) == len(whole.scenarios.series)
    assert document["rows"][0]["resident_mb"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_tables_fit_their_window(whole: Report, width: int, dark: bool, tmp_path: Path) -> None:
    require_chromium()
    changes = []
    for row in whole.rows:
        changes.append(Change(row.key, 1.1, 1.06, 1.14, "slower", 0.99, 0.9, 0.9, "no difference"))
    comparison = Comparison("2026-01-01T00:00:00+00:00", tuple(changes), ("x" * 120,), ("another",))
    page = tmp_path / "report.html"
    page.write_text(html_page(replace(whole, comparison=comparison)), encoding="utf-8")
    measured = measure(page, width, dark=dark, folder=tmp_path)
    assert measured["innerWidth"] == width and measured["scrollWidth"] <= width
    image = Image.open(screenshot(page, width, 6000, dark=dark, folder=tmp_path)).convert("L")
    for part in np.split(np.asarray(image)[1000:5000], 4):
        assert len(np.unique(part)) > 10, "a part of the page is blank"


def test_a_child_that_fails_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LOADER", "raise SystemExit(3)")
    texts, _ = factories.sentences(8, seed=3)
    options = Options(seconds=0.2, batch=4, scenarios=("single", "cold"))
    report = bench_bundle(
        [factories.tiny_bundle()], options=options, examples=Examples(list(texts))
    )
    assert not report.scenarios.series
    assert any("cold start not measured" in note for note in report.scenarios.notes)


def test_the_command_names_an_unknown_scenario(tmp_path: Path) -> None:
    result = CliRunner().invoke(bench, [str(tmp_path), "--scenario", "quick"])
    assert isinstance(result.exception, UsageError)


def test_a_default_bench_measures_no_scenario() -> None:
    assert Options().scenarios == ("single",)


@pytest.mark.slow
def test_scenarios_of_a_bundle_import_no_torch() -> None:
    program = (
        "import sys; sys.path.insert(0, 'tests'); import conftest;"
        "from pathlib import Path;"
        "from kdedge.benchmarks.bench import bench_bundle;"
        "from kdedge.benchmarks.options import Options;"
        f"options = Options(seconds=0.1, scenarios={tuple(SCENARIOS)!r});"
        f"bench_bundle([Path({str(factories.tiny_bundle())!r})], options=options);"
        "print(sorted({'torch', 'transformers', 'scipy', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout == "[]\n", done.stderr
