"""Cached layers equal the teacher's own, after interruptions, damage and concurrent reads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factories
import numpy as np
import pytest
import torch
from filelock import FileLock

from kdedge.distillation import layer_cache
from kdedge.distillation.layer_cache import LayerCache, TeacherLayers, open_layer_cache
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.distillation.pipeline import distill
from kdedge.nn.batching import Encoded
from kdedge.nn.signals import LayerSelection, Signals, read_signals
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import ObjectiveConfig
from kdedge.run.progress import Silent

TEXTS = (*factories.sentences(37, 5)[0], "good", "a film " * 9)
EVERYTHING = LayerSelection((0, 1, 2, 3, 4), (0, 1, 2, 3), (0, 2))
MAX_BYTES = 1e9


@pytest.fixture(scope="module")
def teacher() -> TextClassifier:
    torch.manual_seed(3)
    return TextClassifier(
        factories.bert(layers=4, vocabulary=len(factories.tokenizer())).eval(),
        factories.tokenizer(),
        32,
    )


@pytest.fixture(scope="module")
def data(teacher: TextClassifier) -> Encoded:
    return teacher.encode(
        TEXTS, None, row=np.arange(len(TEXTS)), teacher_logits=np.zeros((len(TEXTS), 2), np.float16)
    )


def open_cache(
    teacher: TextClassifier,
    data: Encoded,
    selection: LayerSelection,
    folder: Path,
    *,
    batch_tokens: int = 64,
    **settings: Any,
) -> LayerCache | None:
    source = TeacherLayers(teacher, "t", data, selection, batch_tokens)
    return open_layer_cache(source, folder, **({"max_bytes": MAX_BYTES} | settings))


def batch_of(teacher: TextClassifier, data: Encoded, rows: list[int]) -> dict[str, torch.Tensor]:
    return teacher.pad(data.take(rows))


def same(cached: torch.Tensor, live: torch.Tensor) -> bool:
    """Equal up to float16 rounding (11 digits), and fp32 rounding in batches of other lengths."""
    return bool(((cached.float() - live).abs() <= live.abs() * 2**-11 + 2e-6).all())


def test_cached_signals_equal_the_teachers(
    teacher: TextClassifier, data: Encoded, tmp_path: Path
) -> None:
    cache = open_cache(teacher, data, EVERYTHING, tmp_path)
    assert cache
    rows = [38, 0, 37, 12]
    batch = batch_of(teacher, data, rows)
    longest, mask = batch["input_ids"].shape[1], batch["attention_mask"].bool()
    assert len(set(mask.sum(1).tolist())) > 2, "texts of several lengths"
    cached = cache.read(torch.tensor(rows), torch.ones(4, 2), longest)
    with torch.no_grad():
        live = read_signals(teacher.model, {name: batch[name] for name in data.tokens}, layers=True)
    both = mask[:, :, None] & mask[:, None, :]
    assert [same(cached.hidden[t][mask], live.hidden[t][mask]) for t in range(5)] == [True] * 5
    for t in range(4):
        assert same(
            cached.attention[t].permute(0, 2, 3, 1)[both],
            live.attention[t].permute(0, 2, 3, 1)[both],
        )
    for t in (0, 2):
        assert all(
            same(
                cached.vectors[t][k].transpose(1, 2)[mask], live.vectors[t][k].transpose(1, 2)[mask]
            )
            for k in range(3)
        )
    assert not cached.vectors[1][0].numel() and torch.equal(cached.logits, torch.ones(4, 2))
    assert all(not bool(block[~mask].any()) for block in cached.hidden), "padding is 0"


LAYERS = {"hidden_weight": 1.0, "attention_weight": 1.0, "embedding_weight": 1.0}


@pytest.mark.parametrize(
    "attention", ["scores", "probabilities", "kl", "value_relation", "qk_relation", "minilm"]
)
@pytest.mark.parametrize("layer_map", ["uniform", "last", [(1, 0), (2, 3), (0, 0)]])
def test_an_objective_selects_exactly_the_layers_it_needs(
    attention: str, layer_map: Any, teacher: TextClassifier, data: Encoded, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    student = factories.bert(layers=2, vocabulary=len(factories.tokenizer())).eval()
    recipe = ObjectiveConfig(attention=attention, layer_map=layer_map, **LAYERS)
    objective = Objective(recipe, "classification", student.config, teacher.model.config).eval()
    cache = open_cache(teacher, data, objective.reads, tmp_path)
    assert cache
    batch = batch_of(teacher, data, [5, 38, 1])
    with torch.no_grad():
        live = DistillationModule(student, objective, teacher)(**batch)
        cached = DistillationModule(student, objective, teacher, cache)(**batch)
    assert {name: float(value) for name, value in cached["parts"].items()} == pytest.approx(
        {name: float(value) for name, value in live["parts"].items()}, rel=3e-3, abs=1e-5
    )
    for smaller in _without_one(objective.reads):
        other = open_cache(teacher, data, smaller, tmp_path)
        assert other
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            DistillationModule(student, objective, teacher, other)(**batch)


def _without_one(reads: LayerSelection) -> list[LayerSelection]:
    """The selection without its first layer, for each kind of signal."""
    kinds = {name: getattr(reads, name) for name in ("hidden", "attention", "vectors")}
    return [
        LayerSelection(**(kinds | {name: layers[1:]})) for name, layers in kinds.items() if layers
    ]


class Interruption(Exception):
    pass


def test_an_interrupted_pass_starts_again(
    teacher: TextClassifier, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def counted(*args: Any, **settings: Any) -> Signals:
        batches.append(1)
        if len(batches) == 5:
            raise Interruption
        return read_signals(*args, **settings)

    monkeypatch.setattr(layer_cache, "read_signals", counted)
    with pytest.raises(Interruption):
        open_cache(teacher, data, EVERYTHING, tmp_path / "interrupted")
    (left,) = folders_of(tmp_path / "interrupted")
    assert left.suffix == ".part"
    for name in ("interrupted", "whole"):
        assert open_cache(
            teacher,
            data,
            EVERYTHING,
            tmp_path / name,
            batch_tokens=32 if name == "interrupted" else 64,
        )
    (interrupted,), (whole,) = (folders_of(tmp_path / name) for name in ("interrupted", "whole"))
    assert interrupted.name == whole.name
    again = np.load(interrupted / "hidden.npy")
    once = np.load(whole / "hidden.npy")
    difference = np.abs(again.astype(np.float32) - once.astype(np.float32))
    assert (difference <= np.abs(once).astype(np.float32) * 2**-10 + 2e-6).all(), (
        "batches of another size: both are rounded, each by half a unit"
    )
    assert not (again == 0).all(1).any(), "every token is there"


def folders_of(run: Path) -> list[Path]:
    return [path for path in run.iterdir() if path.is_dir()]


def test_damaged_files_are_replaced_and_other_texts_have_their_own_cache(
    teacher: TextClassifier, data: Encoded, tmp_path: Path
) -> None:
    open_cache(teacher, data, EVERYTHING, tmp_path)
    hidden = folders_of(tmp_path)[0] / "hidden.npy"
    whole = hidden.read_bytes()
    zeros = whole[:-1000] + bytes(1000)
    for damage in (
        lambda: hidden.write_bytes(whole[:-100]),
        hidden.unlink,
        lambda: hidden.write_bytes(zeros),
    ):
        damage()
        assert open_cache(teacher, data, EVERYTHING, tmp_path) and hidden.read_bytes() == whole
    others = teacher.encode(TEXTS[:-1], None)
    assert open_cache(teacher, others, EVERYTHING, tmp_path) and open_cache(
        teacher, data, LayerSelection((1,)), tmp_path
    )
    assert len(folders_of(tmp_path)) == 3


class RecordedProgress(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_waiting_process_reports_it(
    teacher: TextClassifier, data: Encoded, tmp_path: Path
) -> None:
    assert open_cache(teacher, data, LayerSelection((0,), (), ()), tmp_path)
    (lock,) = tmp_path.glob(".signals-*.lock")
    progress = RecordedProgress()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(str(lock)):
            found = pool.submit(
                open_cache, teacher, data, LayerSelection((0,), (), ()), tmp_path, progress=progress
            )
            while not progress.lines and not found.done():
                time.sleep(0.01)
        assert found.result()
    assert [line.split("; ")[-1] for line in progress.lines] == [
        "waiting for it",
        "signals-" + lock.stem[9:] + ": the teacher's layers on these texts are cached",
    ]


def test_concurrent_processes_run_the_teacher_once(
    teacher: TextClassifier, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(
        layer_cache,
        "write_layers",
        lambda *args, _real=layer_cache.write_layers: (read.append(1), _real(*args))[1],
    )
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: open_cache(teacher, data, EVERYTHING, tmp_path), range(4)))
    assert all(found) and read == [1]


ON_A_CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4 bytes"
)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), ON_A_CPU])
def test_a_batch_that_does_not_fit_is_halved(
    teacher: TextClassifier,
    data: Encoded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    batches: list[int] = []

    def small(model: Any, batch: dict[str, torch.Tensor], *, layers: bool) -> Signals:
        batches.append(len(batch["input_ids"]))
        if batches[-1] > 3:
            raise error
        return read_signals(model, batch, layers=layers)

    whole = open_cache(teacher, data, EVERYTHING, tmp_path / "whole")
    monkeypatch.setattr(layer_cache, "read_signals", small)
    halved = open_cache(teacher, data, EVERYTHING, tmp_path / "halved")
    assert whole and halved and max(batches) > 3
    rows = torch.arange(len(TEXTS))
    blank = torch.zeros(len(TEXTS), 2)
    first = halved.read(rows, blank, 32).hidden
    second = whole.read(rows, blank, 32).hidden
    assert all(same(a, b.float()) for a, b in zip(first, second, strict=True))


def test_other_errors_are_not_treated_as_out_of_memory(
    teacher: TextClassifier, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Signals:
        raise RuntimeError("the size of tensor a (3) must match the size of tensor b (4)")

    monkeypatch.setattr(layer_cache, "read_signals", broken)
    with pytest.raises(RuntimeError, match="must match"):
        open_cache(teacher, data, EVERYTHING, tmp_path)


def test_without_space_or_with_too_large_values_there_is_no_cache(
    teacher: TextClassifier, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = RecordedProgress()
    tokens = int(data.lengths.sum())
    needed = 2 * (tokens * 5 * 24 + int((data.lengths**2).sum()) * 4 * 2 + tokens * 2 * 3 * 24)
    assert (
        open_cache(teacher, data, EVERYTHING, tmp_path, max_bytes=needed - 1, progress=progress)
        is None
    )
    assert "transfer.layers_gb" in progress.lines[0] and not folders_of(tmp_path)

    def large(model: Any, batch: dict[str, torch.Tensor], *, layers: bool) -> Signals:
        return Signals(torch.zeros(0), hidden=(torch.full((*batch["input_ids"].shape, 24), 1e5),))

    monkeypatch.setattr(layer_cache, "read_signals", large)
    assert open_cache(
        teacher, data, LayerSelection((0,)), tmp_path, progress=progress
    ) is None and not folders_of(tmp_path)
    assert (
        "float16" in progress.lines[-1] and "the teacher runs at every step" in progress.lines[-1]
    )

    def large_padding(model: Any, batch: dict[str, torch.Tensor], *, layers: bool) -> Signals:
        padding = (1.0 - batch["attention_mask"])[:, :, None]
        return Signals(torch.zeros(0), hidden=(1e5 * padding.expand(-1, -1, 24),))

    monkeypatch.setattr(layer_cache, "read_signals", large_padding)
    assert open_cache(teacher, data, LayerSelection((0,)), tmp_path), "padding is not cached"
    monkeypatch.undo()
    others = sum(file.stat().st_size for file in tmp_path.glob("signals-*/*.npy"))
    assert open_cache(teacher, data, EVERYTHING, tmp_path, max_bytes=needed) is None, (
        "other caches of the run count, too"
    )
    monkeypatch.setattr(layer_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    assert open_cache(teacher, data, EVERYTHING, tmp_path, max_bytes=needed + others) is None, (
        "a tenth of the free disk space is left"
    )
    monkeypatch.undo()
    assert open_cache(teacher, data, EVERYTHING, tmp_path, max_bytes=needed + others)


def test_a_run_learns_the_same_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = {"epochs": 4.0, "checks": 1, "learning_rate": 1e-3}
    student = factories.tinybert_config(
        objective={"hidden_weight": 1.0, "attention": "minilm", "attention_weight": 1.0}, fit=fit
    )
    document = factories.write_data_and_teacher(tmp_path) | {"student": [student]}
    read: list[int] = []
    real = DistillationModule.forward

    def forward(self: DistillationModule, *args: Any, **batch: Any) -> dict[str, Any]:
        read.append(int(self.layer_cache is not None and "row" in batch))
        return real(self, *args, **batch)

    monkeypatch.setattr(DistillationModule, "forward", forward)
    logits = {}
    for name, layers in (("stored", "auto"), ("live", "live")):
        run = distill(
            factories.make_recipe(document, name=name, transfer={"layers": layers}),
            tmp_path / "runs",
        )
        logits[name] = np.load(run.folder / "student" / "test_logits.npy")
    assert sum(read) == len(read) / 2 > 0
    assert np.abs(logits["stored"] - logits["live"]).max() < 0.02 < np.ptp(logits["live"])
    assert len(list((tmp_path / "runs" / "stored").glob("signals-*/stage.json"))) == 1 and not list(
        (tmp_path / "runs" / "live").glob("signals-*")
    )
