"""The teacher's layers from the disk say what the teacher itself says, whatever was cut off, damaged or wanted by many at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import tinyrun
import torch
from filelock import FileLock

from kdedge.cli.sagemaker_output import copy_runs
from kdedge.distillation import layer_cache as storedlayers
from kdedge.distillation.layer_cache import LayerCache, open_layer_cache
from kdedge.distillation.module import DistillationModule
from kdedge.distillation.objective import Objective
from kdedge.distillation.pipeline import distill
from kdedge.nn.batching import Encoded
from kdedge.nn.signals import LayerSelection, Signals, read_signals
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import ObjectiveConfig
from kdedge.run.progress import Silent

TEXTS = (*tiny.sentences(37, 5)[0], "good", "a film " * 9)
EVERYTHING = LayerSelection((0, 1, 2, 3, 4), (0, 1, 2, 3), (0, 2))
ROOM = 1e9


@pytest.fixture(scope="module")
def teacher() -> TextClassifier:
    torch.manual_seed(3)
    return TextClassifier(
        tiny.bert(layers=4, vocabulary=len(tiny.tokenizer())).eval(), tiny.tokenizer(), 32
    )


@pytest.fixture(scope="module")
def data(teacher: TextClassifier) -> Encoded:
    return teacher.encode(
        TEXTS, None, row=np.arange(len(TEXTS)), teacher_logits=np.zeros((len(TEXTS), 2), np.float16)
    )


def ask(
    teacher: TextClassifier, data: Encoded, reads: LayerSelection, folder: Path, **settings: Any
) -> LayerCache | None:
    return open_layer_cache(
        teacher, "t", data, reads, folder, **({"room": ROOM, "batch_tokens": 64} | settings)
    )


def batch_of(teacher: TextClassifier, data: Encoded, rows: list[int]) -> dict[str, torch.Tensor]:
    return teacher.pad([data[row] for row in rows])


def same(mine: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal to half a unit of the last of a 16-bit number's 11 digits, and to fp32's rounding in batches of other lengths."""
    return bool(((mine.float() - theirs).abs() <= theirs.abs() * 2**-11 + 2e-6).all())


def test_signals_from_the_disk_are_the_teachers(
    teacher: TextClassifier, data: Encoded, tmp_path: Path
) -> None:
    stored = ask(teacher, data, EVERYTHING, tmp_path)
    assert stored
    rows = [38, 0, 37, 12]
    batch = batch_of(teacher, data, rows)
    longest, mask = batch["input_ids"].shape[1], batch["attention_mask"].bool()
    assert len(set(mask.sum(1).tolist())) > 2, "texts of several lengths"
    kept = stored.of(torch.tensor(rows), torch.ones(4, 2), longest)
    with torch.no_grad():
        live = read_signals(teacher.model, {name: batch[name] for name in data.tokens}, layers=True)
    both = mask[:, :, None] & mask[:, None, :]
    assert [same(kept.hidden[t][mask], live.hidden[t][mask]) for t in range(5)] == [True] * 5
    for t in range(4):
        assert same(
            kept.attention[t].permute(0, 2, 3, 1)[both], live.attention[t].permute(0, 2, 3, 1)[both]
        )
    for t in (0, 2):
        assert all(
            same(kept.vectors[t][k].transpose(1, 2)[mask], live.vectors[t][k].transpose(1, 2)[mask])
            for k in range(3)
        )
    assert not kept.vectors[1][0].numel() and torch.equal(kept.logits, torch.ones(4, 2))
    assert all(not bool(block[~mask].any()) for block in kept.hidden), "padding is 0"


LAYERS = {"hidden_weight": 1.0, "attention_weight": 1.0, "embedding_weight": 1.0}


@pytest.mark.parametrize(
    "attention", ["scores", "probabilities", "kl", "value_relation", "qk_relation", "minilm"]
)
@pytest.mark.parametrize("layer_map", ["uniform", "last", "learned", [(1, 0), (2, 3), (0, 0)]])
def test_an_objective_reads_all_that_it_needs_and_no_more(
    attention: str, layer_map: Any, teacher: TextClassifier, data: Encoded, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    student = tiny.bert(layers=2, vocabulary=len(tiny.tokenizer())).eval()
    recipe = ObjectiveConfig(attention=attention, layer_map=layer_map, **LAYERS)
    objective = Objective(recipe, "classification", student.config, teacher.model.config).eval()
    stored = ask(teacher, data, objective.reads, tmp_path)
    assert stored
    batch = batch_of(teacher, data, [5, 38, 1])
    with torch.no_grad():
        live, kept = (
            DistillationModule(student, objective, teacher, one)(**batch) for one in (None, stored)
        )
    assert {name: float(value) for name, value in kept["parts"].items()} == pytest.approx(
        {name: float(value) for name, value in live["parts"].items()}, rel=3e-3, abs=1e-5
    )
    for blind in _without_one(objective.reads):
        other = ask(teacher, data, blind, tmp_path)
        assert other
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            DistillationModule(student, objective, teacher, other)(**batch)


def _without_one(reads: LayerSelection) -> list[LayerSelection]:
    """What is left when the first layer of each kind is left out."""
    kinds = {name: getattr(reads, name) for name in ("hidden", "attention", "vectors")}
    return [
        LayerSelection(**(kinds | {name: layers[1:]})) for name, layers in kinds.items() if layers
    ]


class Cut(Exception):
    pass


def test_a_reading_that_was_cut_off_begins_anew(
    teacher: TextClassifier, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(*args: Any, **settings: Any) -> Signals:
        asked.append(1)
        if len(asked) == 5:
            raise Cut
        return read_signals(*args, **settings)

    monkeypatch.setattr(storedlayers, "read_signals", counted)
    with pytest.raises(Cut):
        ask(teacher, data, EVERYTHING, tmp_path / "cut")
    (left,) = folders_of(tmp_path / "cut")
    assert left.suffix == ".part"
    for name in ("cut", "whole"):
        assert ask(
            teacher, data, EVERYTHING, tmp_path / name, batch_tokens=32 if name == "cut" else 64
        )
    (cut,), (whole,) = (folders_of(tmp_path / name) for name in ("cut", "whole"))
    assert cut.name == whole.name
    mine, theirs = (np.load(folder / "hidden.npy") for folder in (cut, whole))
    apart = np.abs(mine.astype(np.float32) - theirs.astype(np.float32))
    assert (apart <= np.abs(theirs).astype(np.float32) * 2**-10 + 2e-6).all(), (
        "batches of another size: both are rounded, each by half a unit"
    )
    assert not (mine == 0).all(1).any(), "every token is there"


def folders_of(run: Path) -> list[Path]:
    return [path for path in run.iterdir() if path.is_dir()]


def test_a_damaged_file_is_made_again_and_other_texts_are_other_layers(
    teacher: TextClassifier, data: Encoded, tmp_path: Path
) -> None:
    ask(teacher, data, EVERYTHING, tmp_path)
    hidden = folders_of(tmp_path)[0] / "hidden.npy"
    whole = hidden.read_bytes()
    zeros = whole[:-1000] + bytes(1000)
    for damage in (
        lambda: hidden.write_bytes(whole[:-100]),
        hidden.unlink,
        lambda: hidden.write_bytes(zeros),
    ):
        damage()
        assert ask(teacher, data, EVERYTHING, tmp_path) and hidden.read_bytes() == whole
    others = teacher.encode(TEXTS[:-1], None)
    assert ask(teacher, others, EVERYTHING, tmp_path) and ask(
        teacher, data, LayerSelection((1,)), tmp_path
    )
    assert len(folders_of(tmp_path)) == 3


def test_a_finished_job_does_not_carry_them_away(
    teacher: TextClassifier, data: Encoded, tmp_path: Path
) -> None:
    assert ask(teacher, data, LayerSelection((1,)), tmp_path / "run")
    (tmp_path / "run" / "student").mkdir()
    copy_runs([tmp_path / "run"], tmp_path / "model")
    assert [path.name for path in (tmp_path / "model" / "run").iterdir()] == ["student"]


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_who_waits_for_another_says_so(
    teacher: TextClassifier, data: Encoded, tmp_path: Path
) -> None:
    assert ask(teacher, data, LayerSelection((0,), (), ()), tmp_path)
    (lock,) = tmp_path.glob(".signals-*.lock")
    heard = Heard()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(str(lock)):
            found = pool.submit(
                ask, teacher, data, LayerSelection((0,), (), ()), tmp_path, progress=heard
            )
            while not heard.lines and not found.done():
                time.sleep(0.01)
        assert found.result()
    assert [line.split("; ")[-1] for line in heard.lines] == [
        "waiting for it",
        "signals-" + lock.stem[9:] + ": the teacher's layers on these texts, kept",
    ]


def test_many_at_once_read_once(
    teacher: TextClassifier, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(
        storedlayers,
        "_read",
        lambda *args, _real=storedlayers._read: (read.append(1), _real(*args)),
    )
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ask(teacher, data, EVERYTHING, tmp_path), range(4)))
    assert all(found) and read == [1]


ON_A_CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"
)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), ON_A_CPU])
def test_a_batch_that_does_not_fit_is_halved(
    teacher: TextClassifier,
    data: Encoded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    asked: list[int] = []

    def small(model: Any, batch: dict[str, torch.Tensor], *, layers: bool) -> Signals:
        asked.append(len(batch["input_ids"]))
        if asked[-1] > 3:
            raise error
        return read_signals(model, batch, layers=layers)

    whole = ask(teacher, data, EVERYTHING, tmp_path / "whole")
    monkeypatch.setattr(storedlayers, "read_signals", small)
    halved = ask(teacher, data, EVERYTHING, tmp_path / "halved")
    assert whole and halved and max(asked) > 3
    rows = torch.arange(len(TEXTS))
    blank = torch.zeros(len(TEXTS), 2)
    mine, theirs = (one.of(rows, blank, 32).hidden for one in (halved, whole))
    assert all(same(a, b.float()) for a, b in zip(mine, theirs, strict=True))


def test_another_error_is_not_taken_for_want_of_memory(
    teacher: TextClassifier, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Signals:
        raise RuntimeError("the size of tensor a (3) must match the size of tensor b (4)")

    monkeypatch.setattr(storedlayers, "read_signals", broken)
    with pytest.raises(RuntimeError, match="must match"):
        ask(teacher, data, EVERYTHING, tmp_path)


def test_without_room_or_with_too_large_values_the_teacher_runs(
    teacher: TextClassifier, data: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    tokens = int(data.lengths.sum())
    needed = 2 * (tokens * 5 * 24 + int((data.lengths**2).sum()) * 4 * 2 + tokens * 2 * 3 * 24)
    assert ask(teacher, data, EVERYTHING, tmp_path, room=needed - 1, progress=heard) is None
    assert "transfer.layers_gb" in heard.lines[0] and not folders_of(tmp_path)
    large = lambda model, batch, *, layers: Signals(
        torch.zeros(0), hidden=(torch.full((*batch["input_ids"].shape, 24), 1e5),)
    )  # noqa: E731
    monkeypatch.setattr(storedlayers, "read_signals", large)
    assert ask(
        teacher, data, LayerSelection((0,)), tmp_path, progress=heard
    ) is None and not folders_of(tmp_path)
    assert "16 bits" in heard.lines[-1] and "the teacher runs at every step" in heard.lines[-1]
    padded = lambda model, batch, *, layers: Signals(
        torch.zeros(0),
        hidden=(1e5 * (1.0 - batch["attention_mask"])[:, :, None].expand(-1, -1, 24),),
    )  # noqa: E731
    monkeypatch.setattr(storedlayers, "read_signals", padded)
    assert ask(teacher, data, LayerSelection((0,)), tmp_path), "padding is not kept"
    monkeypatch.undo()
    others = sum(file.stat().st_size for file in tmp_path.glob("signals-*/*.npy"))
    assert ask(teacher, data, EVERYTHING, tmp_path, room=needed) is None, (
        "other layers of the run take room, too"
    )
    monkeypatch.setattr(storedlayers.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    assert ask(teacher, data, EVERYTHING, tmp_path, room=needed + others) is None, (
        "a disk is not filled to the last byte"
    )
    monkeypatch.undo()
    assert ask(teacher, data, EVERYTHING, tmp_path, room=needed + others)


def test_a_run_learns_the_same_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = {"epochs": 4.0, "checks": 1, "learning_rate": 1e-3}
    student = tinyrun.tinybert(
        objective={"hidden_weight": 1.0, "attention": "minilm", "attention_weight": 1.0}, fit=fit
    )
    document = tinyrun.prepare(tmp_path) | {"student": [student]}
    read: list[int] = []
    real = DistillationModule.forward

    def forward(self: DistillationModule, *args: Any, **batch: Any) -> dict[str, Any]:
        read.append(int(self.stored is not None and "row" in batch))
        return real(self, *args, **batch)

    monkeypatch.setattr(DistillationModule, "forward", forward)
    logits = {}
    for name, room in (("stored", 8.0), ("live", 0.0)):
        run = distill(
            tinyrun.recipe(document, name=name, transfer={"layers_gb": room}), tmp_path / "runs"
        )
        logits[name] = np.load(run.folder / "student" / "test_logits.npy")
    assert sum(read) == len(read) / 2 > 0
    assert np.abs(logits["stored"] - logits["live"]).max() < 0.02 < np.ptp(logits["live"])
    assert len(list((tmp_path / "runs" / "stored").glob("signals-*/stage.json"))) == 1 and not list(
        (tmp_path / "runs" / "live").glob("signals-*")
    )
