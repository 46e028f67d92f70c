"""A run whose labelled texts and pool are cleaned: its bundle cleans what it reads."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from kdedge.benchmarks.training_data import learned_from
from kdedge.export.export import ExportOptions, export_run

from kdedge.cli.augment import _sources_table
from kdedge.cli.info import info
from kdedge.distillation.pipeline import distill, prepare_context
from kdedge.recipe import load_recipe
from kdedge.run.layout import RunDir
from kdedge.runtime import Bundle, Classifier

pytestmark = pytest.mark.slow

STEPS = ("html", "urls", "emails", "emoji", "punctuation", "spaces")


def littered(text: str, row: int) -> str:
    return f"<p>{text}</p> https://example.org/{row}" if row % 2 else text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("cleaning")
    document = factories.write_data_and_teacher(folder, layers=1)
    for split in ("train", "validation", "test"):
        file = folder / "data" / f"{split}.parquet"
        table = pq.read_table(file)
        texts = [littered(text, row) for row, text in enumerate(table["text"].to_pylist())]
        pq.write_table(table.set_column(0, "text", pa.array(texts)), file)
    pool = [littered(text, row) for row, text in enumerate(factories.sentences(60, 9)[0])]
    pq.write_table(pa.table({"text": pool}), folder / "pool.parquet")
    recipe = factories.make_recipe(
        document,
        data={**document["data"], "clean": {"labelled": True, "unicode": False}},
        augment={"size": 0.5, "pool": {"file": str(folder / "pool.parquet")}},
        student=[{"kind": "bilstm", "hidden": 8, "baseline": False, "fit": {"epochs": 1.0}}],
    )
    (folder / "recipe.toml").write_text(recipe.to_toml())
    assert load_recipe(folder / "recipe.toml") == recipe
    return distill(recipe, folder / "runs")


def test_the_run_says_how_many_texts_each_step_changed(run: RunDir) -> None:
    described = learned_from(run)
    counts = described["sources"]["pool"]["cleaned"]
    assert counts.keys() == set(STEPS)
    produced = described["sources"]["pool"]["produced"]
    assert produced / 3 < counts["html"] == counts["urls"] < produced and counts["emails"] == 0
    context = prepare_context(run.recipe, run)
    assert not any("<" in text for text in context.transfer.texts.texts)
    table = _sources_table(context)
    assert str(table.columns[-1].header) == "changed by cleaning"
    assert f"html {counts['html']}" in next(iter(table.columns[-1].cells))


def test_training_and_device_read_alike(run: RunDir, tmp_path: Path) -> None:
    options = ExportOptions(precisions=("fp32",))
    folder = export_run(run, ["bilstm"], options=options)[0]
    manifest = Bundle.open(folder).manifest
    assert manifest.clean == STEPS
    assert json.loads((folder / "kdedge.json").read_text())["clean"] == list(STEPS)
    assert "cleans every text first: html, urls" in (folder / "README.md").read_text()
    printed = CliRunner().invoke(info, [str(folder)], catch_exceptions=False).output
    assert "cleans:     every text first: html, urls" in printed
    assert Bundle.open(run.teacher_bundle).manifest.clean == STEPS
    texts, _ = factories.sentences(48, factories.SPLIT_SEEDS["test"])
    raw = [littered(text, row) for row, text in enumerate(texts)]
    stored = np.load(run.students["bilstm"].student / "test_logits.npy")
    assert np.allclose(Classifier.load(folder).logits(raw), stored, atol=1e-4)
