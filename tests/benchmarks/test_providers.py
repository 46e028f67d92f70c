"""`--provider all`, the share of nodes on the CPU, and whether int8 pays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import factories
import numpy as np
import pytest
from kdedge.benchmarks import subjects
from kdedge.benchmarks.bench import bench_bundle
from kdedge.benchmarks.examples import Examples
from kdedge.benchmarks.int8_gain import int8_answers
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.page import html_page
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.subjects import bundle_subjects, nodes_on_cpu
from reports import report, timings

from kdedge.errors import IntegrityError, MachineError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.session import PROVIDERS

CPU, CUDA, OPENVINO = PROVIDERS["cpu"], PROVIDERS["cuda"], PROVIDERS["openvino"]
ALL = Options(seconds=0.2, batch=4, providers=("all",))


class FakeSession:
    """A session on the CPU that says that it runs elsewhere."""

    def __init__(self, classifier: Classifier, provider: str, nodes: dict[str, int]) -> None:
        self.classifier = classifier
        self.provider = provider
        self.nodes_per_provider = nodes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.classifier, name)


@pytest.fixture
def three_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO runs most nodes of a graph, CUDA has no driver."""
    factories.tiny_bundle()  # Making it opens files, too, and is kept for all tests.
    load = Classifier.from_bundle

    def from_bundle(
        bundle: Any,
        precision: str,
        provider: str = "cpu",
        threads: Any = None,
        fallback: bool = False,
    ) -> Any:
        if provider in (CUDA, "cuda"):
            raise MachineError(f"{CUDA} was requested but is not used", "no driver", "install it")
        classifier = load(bundle, precision, "cpu", threads, fallback)
        if provider == OPENVINO:
            return FakeSession(classifier, OPENVINO, {OPENVINO: 45, CPU: 5})
        return classifier

    monkeypatch.setattr(subjects.Classifier, "from_bundle", from_bundle)
    monkeypatch.setattr(
        subjects.onnxruntime, "get_available_providers", lambda: [CUDA, OPENVINO, CPU]
    )


def test_every_provider_has_a_row(three_providers: None) -> None:
    bundle = Bundle.open(factories.tiny_bundle())
    found = list(bundle_subjects("x", bundle, None, None, ALL))
    files = list(bundle.manifest.precisions)
    assert [(each.precision, each.provider) for each in found] == [
        (precision, provider) for provider in (CPU, CUDA, OPENVINO) for precision in files
    ]
    for each in found:
        if each.provider == CUDA:
            assert each.runner is None
            assert "was requested but is not used (no driver)" in each.notes[0]
        else:
            assert each.runner is not None
    shares = [each.notes for each in found if each.provider == OPENVINO]
    assert all("5 of 50 nodes (10.0 %) run on the CPU" in notes for notes in shares)


@pytest.mark.slow
def test_a_failed_provider_is_in_the_report(three_providers: None) -> None:
    texts, labels = factories.sentences(20, seed=3)
    measured = bench_bundle(
        [factories.tiny_bundle()], options=ALL, examples=Examples(list(texts), labels=labels)
    )
    rows = {(row.precision, row.provider): row for row in measured.rows}
    assert rows["fp32", CUDA].single is None and rows["fp32", OPENVINO].single is not None
    assert rows["fp32", OPENVINO].value == rows["fp32", CPU].value
    page = html_page(measured)
    assert "was requested but is not used" in page and "Does int8 pay here?" in page
    document = measured.to_json()
    assert [row["nodes"] for row in document["rows"] if row["provider"] == OPENVINO] == [
        {OPENVINO: 45, CPU: 5}
    ] * 2


def test_a_provider_that_runs_no_node_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this check, the CPU would be measured under another name."""
    load = Classifier.from_bundle

    def from_bundle(*arguments: Any, **more: Any) -> Any:
        bundle, precision, provider, *_ = arguments
        classifier = load(bundle, precision, "cpu", 1)
        if provider == CPU:
            return classifier
        return FakeSession(classifier, OPENVINO, {CPU: 50})

    bundle = Bundle.open(factories.tiny_bundle())
    monkeypatch.setattr(subjects.Classifier, "from_bundle", from_bundle)
    monkeypatch.setattr(subjects.onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])
    found = list(bundle_subjects("x", bundle, None, None, ALL))
    for each in found:
        if each.provider == OPENVINO:
            assert each.runner is None and "runs no node of this graph" in each.notes[0]
    assert {each.provider for each in found} == {CPU, OPENVINO}


def test_a_provider_that_fails_at_the_first_text_is_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(self: Classifier, encoded: Any) -> Any:
        raise IntegrityError("the graph fails", "an operator is missing")

    monkeypatch.setattr(Classifier, "run", run)
    bundle = Bundle.open(factories.tiny_bundle())
    found = list(bundle_subjects("x", bundle, None, None, ALL))
    assert all("the graph fails (an operator is missing)" in each.notes[0] for each in found[:2])


def test_a_named_provider_that_is_not_used_stays_an_error(three_providers: None) -> None:
    bundle = Bundle.open(factories.tiny_bundle())
    with pytest.raises(MachineError, match="was requested but is not used"):
        list(bundle_subjects("x", bundle, None, None, Options(providers=("cuda",))))


def test_the_share_on_the_cpu_is_stated() -> None:
    assert nodes_on_cpu({CUDA: 90, CPU: 10}) == "10 of 100 nodes (10.0 %) run on the CPU"
    assert nodes_on_cpu({CPU: 10}) == "" and nodes_on_cpu({CUDA: 10}) == ""
    assert nodes_on_cpu({}) == ""


# Does int8 pay?


def two_files(int8: float, *, seed: int = 1) -> Report:
    """A report with an fp32 and an int8 file of one student."""
    example = report()
    rows = (
        replace(example.rows[2], single=timings(1e-3, seed=0)),
        replace(example.rows[3], single=timings(int8, seed=seed)),
    )
    return replace(example, rows=rows)


@pytest.mark.parametrize(
    "seconds, words", [(0.5e-3, "pays"), (2e-3, "does not pay"), (1e-3, "is inconclusive")]
)
def test_int8_pays_if_the_interval_is_below_1(seconds: float, words: str) -> None:
    (answer,) = int8_answers(two_files(seconds))
    assert f"student on cpu: int8 {words}, " in answer.sentence
    assert answer.ratio is not None
    assert answer.ratio.ratio == pytest.approx(1e3 * seconds, rel=0.1)


def test_the_interval_is_that_of_the_sign_test() -> None:
    """For 25 rounds the 99 % interval goes from the 6th to the 20th ratio (binomial tables)."""
    from scipy import stats

    example = two_files(0.9e-3)
    fp32, int8 = [row.single for row in example.rows]
    assert fp32 is not None and int8 is not None
    ratios = np.sort(int8.medians / fp32.medians)
    rank = int(stats.binom.ppf(0.005, len(ratios), 0.5)) - 1
    (answer,) = int8_answers(example)
    assert answer.ratio is not None
    assert answer.ratio.low == pytest.approx(ratios[rank])
    assert answer.ratio.high == pytest.approx(ratios[-1 - rank])


def test_a_file_that_was_not_measured_says_why() -> None:
    example = two_files(1e-3)
    failed = replace(example.rows[1], single=None, notes=("not measured: no driver",))
    (answer,) = int8_answers(replace(example, rows=(example.rows[0], failed)))
    assert answer.sentence == "student on cpu: int8 not measured: no driver."
    assert int8_answers(replace(example, rows=example.rows[1:])) == []


def test_fallback_is_part_of_the_answer() -> None:
    example = two_files(0.5e-3)
    rows = [replace(row, provider=OPENVINO, nodes={OPENVINO: 9, CPU: 1}) for row in example.rows]
    (answer,) = int8_answers(replace(example, rows=tuple(rows)))
    assert answer.sentence.startswith("student on openvino: ")
    assert answer.sentence.endswith("; 1 of 10 nodes (10.0 %) run on the CPU.")
