"""The transfer set: labelled once, kept by key, resumed shard by shard, never trusted when damaged."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from kdedge.errors import CheckFailed, IntegrityError
from kdedge.io.text_column import TextColumn
from kdedge.nn.text_model import TextClassifier
from kdedge.recipe import TransferConfig
from kdedge.run.stage import StageContext
from kdedge.transfer import dataset as transfer
from kdedge.transfer.dataset import FILES, FilterResult, build_transfer_set, read_transfer_set
from kdedge.transfer.logit_cache import text_key
from kdedge.transfer.texts import TransferTexts, collect_texts

RECIPE = TransferConfig(shard_size=16, batch_tokens=256, precision="fp32")


class Counting(TextClassifier):
    """A teacher that counts the texts it is asked about, and can be told to break down."""

    asked = 0
    breaks_after = 10**9

    def predict_logits(self, texts, pairs, **settings):
        Counting.asked += len(texts)
        if Counting.asked > Counting.breaks_after:
            raise KeyboardInterrupt
        return super().predict_logits(texts, pairs, **settings)


@pytest.fixture
def teacher() -> Counting:
    torch.manual_seed(0)
    Counting.asked, Counting.breaks_after = 0, 10**9
    return Counting(tiny.bert().eval(), tiny.tokenizer(), 32)


def folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("task", [tiny.single_task(), tiny.pair_task()], ids=["single", "pair"])
def test_holds_what_the_teacher_says_of_each_text(tmp_path: Path, teacher: Counting, task) -> None:
    texts = collect_texts(task)
    made = build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "transfer")
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
    assert np.ptp(direct, axis=0).min() > 0.01, (
        "answers must differ between texts for this to show anything"
    )
    assert made.texts.texts == task.train.texts and made.texts.pairs == task.train.pairs
    assert np.array_equal(made.texts.labels, task.train.labels)


def test_cut_off_and_resumed_is_the_same_set(tmp_path: Path, teacher: Counting) -> None:
    texts = collect_texts(tiny.single_task())
    build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "whole" / "transfer")
    Counting.asked, Counting.breaks_after = 0, 40
    with pytest.raises(KeyboardInterrupt):
        build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "cut" / "transfer")
    assert not (tmp_path / "cut" / "transfer").exists()
    Counting.asked, Counting.breaks_after = 0, 10**9
    build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "cut" / "transfer")
    assert Counting.asked == 96 - 32, "the two finished shards are used again"
    assert folder_hash(tmp_path / "cut" / "transfer") == folder_hash(
        tmp_path / "whole" / "transfer"
    )


def test_cut_off_after_the_shards_were_joined_nothing_is_asked_again(
    tmp_path: Path, teacher: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = collect_texts(tiny.single_task())
    build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "whole" / "transfer")

    def killed(path: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(transfer, "hash_file", killed)
        build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "cut" / "transfer")
    Counting.asked = 0
    build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "cut" / "transfer")
    assert Counting.asked == 0
    assert folder_hash(tmp_path / "cut" / "transfer") == folder_hash(
        tmp_path / "whole" / "transfer"
    )


def test_refused_texts_are_left_out_and_their_answers_kept(
    tmp_path: Path, teacher: Counting
) -> None:
    texts = collect_texts(tiny.single_task(80))
    every = build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "every")
    stays = np.random.default_rng(0).random(80) < 0.5

    def judge(given: TransferTexts, answers: Iterable[np.ndarray]) -> FilterResult:
        assert np.array_equal(np.concatenate(list(answers)), every.logits)
        return FilterResult(stays, {"chance": int((~stays).sum())})

    some = build_transfer_set(
        RECIPE, texts, teacher, "hash", tmp_path / "some", judge=judge, filters={"half": 1}
    )
    expected = every.take(np.flatnonzero(stays))
    assert (
        some.texts.texts == expected.texts.texts
        and np.array_equal(some.logits, expected.logits)
        and 20 < len(some) < 60
    )
    assert np.array_equal(some.texts.labels, expected.texts.labels)
    Counting.asked = 0
    again = build_transfer_set(
        RECIPE,
        texts,
        teacher,
        "hash",
        tmp_path / "some",
        filters={"none": 1},
        stages=StageContext(force=True),
    )
    assert Counting.asked == 0 and again.content_hash() == every.content_hash()


@pytest.mark.parametrize(
    "labels",
    [np.eye(5, dtype=np.float32)[np.arange(40) % 5], np.array([np.nan, 2.5] * 20, np.float32)],
    ids=["sets", "scores"],
)
def test_labels_of_every_kind_come_back(
    tmp_path: Path, teacher: Counting, labels: np.ndarray
) -> None:
    texts = TransferTexts.of([f"a film {i}" for i in range(40)], None, ["labelled"] * 40, labels)
    made = build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "transfer")
    assert made.texts.labels.dtype == np.float32 and np.array_equal(
        made.texts.labels, labels, equal_nan=True
    )


def test_more_texts_ask_only_about_the_new_ones(tmp_path: Path, teacher: Counting) -> None:
    texts = collect_texts(tiny.single_task(80))
    build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "transfer")
    more = replace(
        texts,
        texts=texts.texts + TextColumn.of(["a new film"]),
        origins=texts.origins + TextColumn.of(["rule"]),
        labels=np.append(texts.labels, -1),
    )
    Counting.asked = 0
    grown = build_transfer_set(
        RECIPE, more, teacher, "hash", tmp_path / "transfer", stages=StageContext(force=True)
    )
    assert Counting.asked == 1 and len(grown) == 81 and grown.texts.origins[-1] == "rule"
    Counting.asked = 0
    build_transfer_set(
        RECIPE,
        more,
        teacher,
        "another teacher",
        tmp_path / "transfer",
        stages=StageContext(force=True),
    )
    assert Counting.asked == 81, "another teacher's answers are not these"
    Counting.asked = 0
    coarse = build_transfer_set(
        RECIPE.model_copy(update={"precision": "bf16"}),
        more,
        teacher,
        "another teacher",
        tmp_path / "transfer",
        stages=StageContext(force=True),
    )
    assert Counting.asked == 81 and not np.array_equal(coarse.logits, grown.logits), (
        "nor are those of another precision"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused(tmp_path: Path, teacher: Counting, name: str) -> None:
    build_transfer_set(
        RECIPE, collect_texts(tiny.single_task()), teacher, "hash", tmp_path / "transfer"
    )
    path = tmp_path / "transfer" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=name):
        read_transfer_set(tmp_path / "transfer")
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{name} is not there"):
        read_transfer_set(tmp_path / "transfer")


def test_answers_of_a_damaged_set_are_not_used_again(tmp_path: Path, teacher: Counting) -> None:
    texts = collect_texts(tiny.single_task(80))
    good = build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "transfer")
    said = np.array(good.logits)
    content = bytearray((tmp_path / "transfer" / "logits.npy").read_bytes())
    content[-3] ^= 4
    (tmp_path / "transfer" / "logits.npy").write_bytes(bytes(content))
    Counting.asked = 0
    again = build_transfer_set(
        RECIPE,
        texts,
        teacher,
        "hash",
        tmp_path / "transfer",
        filters={"other": 1},
        stages=StageContext(force=True),
    )
    assert Counting.asked == 80 and np.array_equal(again.logits, said)


MANY = """
import json, re, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from kdedge.transfer.texts import TransferTexts, no_labels
from kdedge.recipe import Transfer
from kdedge.io.text_column import Strings
from kdedge.io.arrow import blocks_of, map_table, write_table
from kdedge.transfer.dataset import build_transfer_set

folder, count = Path(sys.argv[1]), int(sys.argv[2])
held = lambda: int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
most = 0

class Teacher:
    max_length = 64
    def predict_logits(self, texts, pairs, **settings):
        global most
        most = max(most, held())
        return np.full((len(texts), 64), 0.5, np.float32)

if count:
    texts = Strings(map_table(folder / "given.arrow")["text"])[:count]
    texts = TransferTexts.of(texts, None, ("pool",) * count, no_labels(count, "classification", 64))
    before = held()
    made = build_transfer_set(Transfer(), texts, Teacher(), "teacher", folder / f"transfer-{count}")
    print(json.dumps([max(most, held()) - before, len(made), made.texts.texts[count - 1][:11], float(made.logits[-1, -1])]))
else:
    write_table(blocks_of(pa.table({"text": Strings.of(f"text {number:06d} " + "of some length " * 20 for number in range(150_000)).column})), folder / "given.arrow")
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(),
    reason="the system does not tell how much memory a process holds",
)
def test_memory_does_not_grow_with_texts(tmp_path: Path) -> None:
    """100,000 texts more are 31 MB, and what is said of them 13 MB: neither is held, but for an origin, a label and the like for each."""

    def grown(count: int) -> float:
        done = subprocess.run(
            [sys.executable, "-c", MANY, str(tmp_path), str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        megabytes, *found = json.loads(done.stdout)
        assert found == [count, f"text {count - 1:06d}", 0.5]
        return float(megabytes)

    subprocess.run([sys.executable, "-c", MANY, str(tmp_path), "0"], check=True)
    few, many = grown(50_000), grown(150_000)
    assert many - few < 8, f"{many:.0f} MB for three times the texts that take {few:.0f}"


def test_a_teacher_that_answers_infinity_is_stopped(tmp_path: Path, teacher: Counting) -> None:
    with torch.no_grad():
        teacher.model.classifier.bias[0] = float("inf")
    with pytest.raises(CheckFailed, match="not finite"):
        build_transfer_set(
            RECIPE, collect_texts(tiny.single_task()), teacher, "hash", tmp_path / "transfer"
        )
    assert not (tmp_path / "transfer").exists()


def test_keys_tell_teacher_text_and_pair_apart() -> None:
    keys = {
        text_key("t", "a", None),
        text_key("u", "a", None),
        text_key("t", "b", None),
        text_key("t", "a", ""),
        text_key("t", "a", "b"),
        text_key("t", "ab", None),
    }
    assert len(keys) == 6


def test_answers_to_texts_cut_elsewhere_are_not_used_again(
    tmp_path: Path, teacher: Counting
) -> None:
    texts = collect_texts(tiny.single_task(80))
    short = replace(teacher, max_length=6)
    build_transfer_set(RECIPE, texts, short, "hash", tmp_path / "transfer")
    longer = build_transfer_set(
        RECIPE, texts, teacher, "hash", tmp_path / "transfer", stages=StageContext(force=True)
    )
    fresh = build_transfer_set(RECIPE, texts, teacher, "hash", tmp_path / "fresh")
    assert np.array_equal(longer.logits, fresh.logits)
