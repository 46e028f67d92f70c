"""Training only the used rows of an embedding changes them exactly as training all rows does."""

from __future__ import annotations

from copy import deepcopy

import factories
import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.students.subset_embedding import train_used_embeddings_only

READ = np.array([5, 9, 9, 7, 30, 31, 12])


def student(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "bilstm":
        return BiLstmForSequenceClassification(
            BiLstmModelConfig(vocab_size=40, embedding_dim=8, hidden_size=8, head_size=8)
        )
    return factories.bert(layers=2, vocabulary=40)


def train(model: PreTrainedModel) -> None:
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.train()
    for _ in range(5):
        ids = torch.tensor([[5, 9, 7, 0], [30, 31, 12, 5]])
        logits = model(input_ids=ids, attention_mask=(ids > 0).long()).logits
        logits.square().sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["bilstm", "bert"])
def test_used_rows_change_as_in_a_training_of_all_rows(kind: str) -> None:
    whole = student(kind)
    some, before = deepcopy(whole), deepcopy(whole.state_dict())
    train(whole)
    with train_used_embeddings_only(some, READ):
        train(some)
        assert sum(p.numel() for p in some.parameters()) < sum(
            p.numel() for p in whole.parameters()
        )
    table = "embedding.weight" if kind == "bilstm" else "bert.embeddings.word_embeddings.weight"
    assert some.state_dict().keys() == before.keys()
    for key, value in whole.state_dict().items():
        mine = some.state_dict()[key]
        if key == table:
            unread = np.setdiff1d(np.arange(40), [*READ, 0])
            assert torch.equal(mine[unread], before[key][unread]), "not even decayed"
            assert torch.equal(mine[READ], value[READ]) and not torch.equal(
                mine[READ], before[key][READ]
            )
        else:
            assert torch.equal(mine, value), key


def test_an_unused_token_is_an_error_and_the_whole_embedding_comes_back() -> None:
    model = student("bilstm")
    with pytest.raises(IndexError), train_used_embeddings_only(model, READ):
        model(input_ids=torch.tensor([[6]]), attention_mask=torch.ones(1, 1, dtype=torch.long))
    assert isinstance(model.embedding, torch.nn.Embedding) and model.embedding.num_embeddings == 40
