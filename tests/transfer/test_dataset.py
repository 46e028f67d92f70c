"""The transfer set: labelled once, reused by key, resumed by shard, rejected if damaged."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import factories
import numpy as np
import pytest
import torch

from kdedge.errors import CheckFailed, IntegrityError, Interrupted
from kdedge.io.text_column import TextColumn
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import TransferConfig
from kdedge.run.stage import DEFAULT_STAGES, STAGE_FILE, StageContext, read_stage
from kdedge.transfer import dataset as transfer
from kdedge.transfer.dataset import (
    FILES,
    FilterResult,
    TransferBuilder,
    TransferSet,
    read_transfer_set,
)
from kdedge.transfer.logit_cache import text_key
from kdedge.transfer.texts import TransferTexts, collect_texts

PROGRAM = Path(__file__).with_name("memory_program.py")
CONFIG = TransferConfig(shard_size=16, batch_tokens=256, precision="fp32")


FORCE = StageContext(force=True)


class Counting(TextClassifier):
    """A teacher that counts its texts, and is interrupted after some of them."""

    labelled = 0
    breaks_after = 10**9

    def predict_encoded(self, data, **settings):
        Counting.labelled += len(data)
        if Counting.labelled > Counting.breaks_after:
            raise KeyboardInterrupt
        return super().predict_encoded(data, **settings)


def build(
    texts: TransferTexts,
    teacher: TextClassifier,
    folder: Path,
    stages: StageContext = DEFAULT_STAGES,
    **settings,
) -> TransferSet:
    builder = TransferBuilder(
        **{"config": CONFIG, "teacher": teacher, "teacher_hash": "hash"} | settings
    )
    return builder.build(texts, folder, stages=stages)


@pytest.fixture
def teacher() -> Counting:
    torch.manual_seed(0)
    Counting.labelled, Counting.breaks_after = 0, 10**9
    return Counting(factories.bert().eval(), factories.tokenizer(), 32)


def folder_hash(folder: Path) -> str:
    """Hash the files of a stage; stage.json also holds the times of the others."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        if path.name == STAGE_FILE:
            record = read_stage(folder)
            hashes = {name: file.sha256 for name, file in record.files.items()}
            content = repr((record.inputs, record.result, hashes)).encode()
        digest.update(path.name.encode() + content)
    return digest.hexdigest()


@pytest.mark.parametrize(
    "task", [factories.single_task(), factories.pair_task()], ids=["single", "pair"]
)
def test_holds_the_logits_of_each_text(tmp_path: Path, teacher: Counting, task) -> None:
    texts = collect_texts(task)
    made = build(texts, teacher, tmp_path / "transfer")
    direct = np.concatenate(
        [
            teacher.predict_logits(
                (text,), None if task.train.pairs is None else (task.train.pairs[i],)
            )
            for i, text in enumerate(texts.texts)
        ]
    )
    assert made.logits.dtype == np.float16 and len(made) == len(task.train)
    # 16 bits hold 11 significant ones: half a step is 2^-11 of the value.
    assert np.allclose(made.logits.astype(np.float32), direct, rtol=2**-11 + 1e-6, atol=1e-5)
    assert np.ptp(direct, axis=0).min() > 0.01, "the test needs logits that differ between texts"
    assert made.texts.texts == task.train.texts and made.texts.pairs == task.train.pairs
    assert np.array_equal(made.texts.labels, task.train.labels)


def test_an_interrupted_and_resumed_build_is_the_same_set(
    tmp_path: Path, teacher: Counting
) -> None:
    texts = collect_texts(factories.single_task())
    build(texts, teacher, tmp_path / "whole" / "transfer")
    Counting.labelled, Counting.breaks_after = 0, 40
    with pytest.raises(Interrupted):
        build(texts, teacher, tmp_path / "cut" / "transfer")
    assert not (tmp_path / "cut" / "transfer").exists()
    Counting.labelled, Counting.breaks_after = 0, 10**9
    build(texts, teacher, tmp_path / "cut" / "transfer")
    assert Counting.labelled == 96 - 32, "the two finished shards are reused"
    assert folder_hash(tmp_path / "cut" / "transfer") == folder_hash(
        tmp_path / "whole" / "transfer"
    )


def test_nothing_is_labelled_again_after_the_shards_were_joined(
    tmp_path: Path, teacher: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = collect_texts(factories.single_task())
    build(texts, teacher, tmp_path / "whole" / "transfer")

    def killed(path: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(transfer, "hash_file", killed)
        build(texts, teacher, tmp_path / "cut" / "transfer")
    Counting.labelled = 0
    build(texts, teacher, tmp_path / "cut" / "transfer")
    assert Counting.labelled == 0
    assert folder_hash(tmp_path / "cut" / "transfer") == folder_hash(
        tmp_path / "whole" / "transfer"
    )


def test_rejected_texts_are_left_out_but_their_logits_are_reused(
    tmp_path: Path, teacher: Counting
) -> None:
    texts = collect_texts(factories.single_task(80))
    every = build(texts, teacher, tmp_path / "every")
    kept = np.random.default_rng(0).random(80) < 0.5

    def keep_half(_: TransferTexts, logits: Iterable[np.ndarray]) -> FilterResult:
        assert np.array_equal(np.concatenate(list(logits)), every.logits)
        return FilterResult(kept, {"half": int((~kept).sum())})

    some = build(
        texts,
        teacher,
        tmp_path / "some",
        teacher_filter=keep_half,
        filter_settings={"half": 1},
    )
    expected = every.take(np.flatnonzero(kept))
    assert (
        some.texts.texts == expected.texts.texts
        and np.array_equal(some.logits, expected.logits)
        and 20 < len(some) < 60
    )
    assert np.array_equal(some.texts.labels, expected.texts.labels)
    Counting.labelled = 0
    again = build(texts, teacher, tmp_path / "some", FORCE, filter_settings={"none": 1})
    assert Counting.labelled == 0 and again.content_hash() == every.content_hash()


@pytest.mark.parametrize(
    "labels",
    [np.eye(5, dtype=np.float32)[np.arange(40) % 5], np.array([np.nan, 2.5] * 20, np.float32)],
    ids=["sets", "scores"],
)
def test_labels_of_every_kind_come_back(
    tmp_path: Path, teacher: Counting, labels: np.ndarray
) -> None:
    texts = TransferTexts.of([f"a film {i}" for i in range(40)], None, ["labelled"] * 40, labels)
    made = build(texts, teacher, tmp_path / "transfer")
    assert made.texts.labels.dtype == np.float32 and np.array_equal(
        made.texts.labels, labels, equal_nan=True
    )


def test_only_new_texts_are_labelled(tmp_path: Path, teacher: Counting) -> None:
    texts = collect_texts(factories.single_task(80))
    build(texts, teacher, tmp_path / "transfer")
    more = replace(
        texts,
        texts=texts.texts + TextColumn.of(["a new film"]),
        origins=texts.origins + TextColumn.of(["rules"]),
        labels=np.append(texts.labels, -1),
    )
    Counting.labelled = 0
    grown = build(more, teacher, tmp_path / "transfer", FORCE)
    assert Counting.labelled == 1 and len(grown) == 81 and grown.texts.origins[-1] == "rules"
    Counting.labelled = 0
    build(more, teacher, tmp_path / "transfer", FORCE, teacher_hash="another teacher")
    assert Counting.labelled == 81, "another teacher has other logits"
    Counting.labelled = 0
    coarse = build(
        more,
        teacher,
        tmp_path / "transfer",
        FORCE,
        teacher_hash="another teacher",
        config=CONFIG.model_copy(update={"precision": "bf16"}),
    )
    assert Counting.labelled == 81 and not np.array_equal(coarse.logits, grown.logits), (
        "and so has another precision"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_an_error(tmp_path: Path, teacher: Counting, name: str) -> None:
    build(collect_texts(factories.single_task()), teacher, tmp_path / "transfer")
    path = tmp_path / "transfer" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=name):
        read_transfer_set(tmp_path / "transfer")
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{name} does not exist"):
        read_transfer_set(tmp_path / "transfer")


def test_logits_of_a_damaged_set_are_not_reused(tmp_path: Path, teacher: Counting) -> None:
    texts = collect_texts(factories.single_task(80))
    good = build(texts, teacher, tmp_path / "transfer")
    logits = np.array(good.logits)
    content = bytearray((tmp_path / "transfer" / "logits.npy").read_bytes())
    content[-3] ^= 4
    (tmp_path / "transfer" / "logits.npy").write_bytes(bytes(content))
    Counting.labelled = 0
    again = build(texts, teacher, tmp_path / "transfer", FORCE, filter_settings={"other": 1})
    assert Counting.labelled == 80 and np.array_equal(again.logits, logits)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(),
    reason="the system does not show how much memory a process holds",
)
def test_memory_does_not_grow_with_texts(tmp_path: Path) -> None:
    """60,000 more texts are 19 MB, their logits 8 MB: neither is held in memory."""

    def grown(count: int) -> float:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(tmp_path), str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        megabytes, *found = json.loads(done.stdout)
        assert found == [count, f"text {count - 1:06d}", 0.5]
        return float(megabytes)

    subprocess.run([sys.executable, str(PROGRAM), str(tmp_path), "0"], check=True)
    few, many = grown(20_000), grown(80_000)
    assert many - few < 8, f"{many:.0f} MB for four times the texts that take {few:.0f}"


def test_an_infinite_logit_is_an_error(tmp_path: Path, teacher: Counting) -> None:
    with torch.no_grad():
        teacher.model.classifier.bias[0] = float("inf")
    with pytest.raises(CheckFailed, match="not finite"):
        build(collect_texts(factories.single_task()), teacher, tmp_path / "transfer")
    assert not (tmp_path / "transfer").exists()


def test_keys_differ_by_teacher_text_and_pair() -> None:
    keys = {
        text_key("t", "a", None),
        text_key("u", "a", None),
        text_key("t", "b", None),
        text_key("t", "a", ""),
        text_key("t", "a", "b"),
        text_key("t", "ab", None),
    }
    assert len(keys) == 6


def test_logits_of_texts_truncated_elsewhere_are_not_reused(
    tmp_path: Path, teacher: Counting
) -> None:
    texts = collect_texts(factories.single_task(80))
    short = replace(teacher, max_length=6)
    build(texts, short, tmp_path / "transfer")
    longer = build(texts, teacher, tmp_path / "transfer", FORCE)
    fresh = build(texts, teacher, tmp_path / "fresh")
    assert np.array_equal(longer.logits, fresh.logits)
