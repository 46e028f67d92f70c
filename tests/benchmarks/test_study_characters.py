"""Character features: their n-grams, the table they are folded into, and the study of them."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import numpy as np
import pytest
import torch
from characters import study
from click.testing import CliRunner
from kdedge.benchmarks.studies._character_embedding import (
    NONE,
    character_ngrams,
    ngram_table,
    train_character_embeddings,
)

from kdedge.errors import UsageError
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig

BILSTM = {
    "kind": "bilstm",
    "hidden": 8,
    "head": 8,
    "embedding": 8,
    "max_length": 32,
    "baseline": False,
    "fit": {"epochs": 1.0, "checks": 1, "learning_rate": 1e-2},
}


def test_ngrams_mark_where_a_word_starts() -> None:
    assert character_ngrams("ed") == ["<e", "ed", "d>", "<ed", "ed>", "<ed>"]
    assert character_ngrams("##ed") == ["ed", "d>", "ed>"]


def test_ngrams_of_one_used_piece_and_of_special_pieces_do_not_count() -> None:
    pieces = ["[PAD]", "walk", "talk", "walked", "balk"]
    table = ngram_table(pieces, np.array([0, 1, 2]), {"[PAD]"})
    assert table[0].unique().tolist() == [NONE]
    shared = {"al", "lk", "k>", "alk", "lk>", "alk>"}
    of_walk, of_walked, of_balk = (
        {int(number) for number in table[row]} - {NONE} for row in (1, 3, 4)
    )
    assert len(of_walk) == len(shared) and of_balk == of_walk, "balk was not used, but has them"
    assert len(of_walked) == len({"al", "lk", "alk"}), "<w and wal are of walk alone"


def test_training_ends_with_one_table_that_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    tokenizer = factories.tokenizer()
    words = ["moving", "boring", "camera", "actor", "[PAD]"]
    used = tokenizer.convert_tokens_to_ids(words)
    ids = torch.tensor([used[:-1]])
    model = BiLstmForSequenceClassification(
        BiLstmModelConfig(
            vocab_size=len(tokenizer), embedding_dim=8, hidden_size=8, head_size=8, dropout=0.0
        )
    )
    before = model.embedding.weight.detach().clone()
    with train_character_embeddings(model, np.array(used), tokenizer):
        start = model(input_ids=ids).logits
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            model(input_ids=ids).logits.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        trained = model(input_ids=ids).logits
        assert model.embedding.shared.weight[NONE].eq(0).all()
    assert isinstance(model.embedding, torch.nn.Embedding)
    assert torch.allclose(model(input_ids=ids).logits, trained, atol=1e-6)
    assert not torch.allclose(start, trained, atol=1e-3)
    moved = (model.embedding.weight - before).abs().amax(1)
    ending, good = tokenizer.convert_tokens_to_ids(["ending", "good"])
    assert moved[ending] > 0.01 and moved[good] == 0, "only ending has the letters of used pieces"
    assert model.embedding.weight[tokenizer.pad_token_id].eq(0).all()


@pytest.mark.slow
def test_the_study_compares_both_and_resumes(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    document = factories.write_data_and_teacher(tmp_path, train=48)
    recipe.write_text(factories.make_recipe(document, student=BILSTM).to_toml())
    arguments = [str(recipe), "--runs", str(tmp_path / "runs"), "--seeds", "2", "--threads", "1"]
    first = CliRunner().invoke(study, arguments, catch_exceptions=False)
    rows = [line.split(" | ")[0] for line in first.output.splitlines() if line.startswith("| ")]
    assert rows == ["| embeddings", "| ---", "| pieces alone", "| pieces and characters"]
    log = tmp_path / "runs" / "r" / "characters" / "runs.jsonl"
    trained = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(trained) == len({row["key"] for row in trained}) == 4
    again = CliRunner().invoke(study, arguments, catch_exceptions=False)
    assert len(log.read_text().splitlines()) == 4
    assert again.output.splitlines()[-1] == first.output.splitlines()[-1]


@pytest.mark.slow
def test_the_study_refuses_a_tinybert(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    document = factories.write_data_and_teacher(tmp_path, train=48)
    student = factories.tinybert_config()
    recipe.write_text(factories.make_recipe(document, student=student).to_toml())
    with pytest.raises(UsageError, match="this study trains a BiLSTM"):
        CliRunner().invoke(study, [str(recipe)], catch_exceptions=False)
