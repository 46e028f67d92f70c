"""The study that times a run's bundles on several execution providers."""

from __future__ import annotations

from pathlib import Path

import factories
import providers
from click.testing import CliRunner


def test_every_file_is_timed_on_each_provider_that_runs_it(tmp_path: Path) -> None:
    document = factories.write_data_and_teacher(tmp_path)
    student = {"kind": "bilstm", "max_length": 32}
    recipe = factories.make_recipe(document, student=[student])
    run = providers.RunDir.create(recipe, tmp_path / "runs")
    factories.copy_bundle(factories.tiny_bundle("bilstm"), run.students["bilstm"].folder)
    command = [str(run.folder), "--provider", "cpu", "--threads", "2", "--rounds", "1"]
    output = CliRunner().invoke(providers.study, command, catch_exceptions=False).output
    rows = [line.strip("| ").split(" | ") for line in output.splitlines()[-4:]]
    assert [row[:4] for row in rows] == [
        ["bilstm", "fp32", "cpu", "1"],
        ["bilstm", "int8", "cpu", "1"],
        ["bilstm", "int8", "cpu", "2"],
        ["bilstm", "fp32", "cpu", "2"],
    ]


def test_the_round_that_warms_up_is_not_timed() -> None:
    classifier = providers.Classifier.load(factories.tiny_bundle("bilstm"), threads=1)
    texts = [f"text {number}" for number in range(7)]
    [(alone, together)] = providers.time_files([classifier], texts, rounds=2)
    assert len(alone) == 2 * providers.SINGLE and len(together) == 2
    assert min(*alone, *together) > 0
