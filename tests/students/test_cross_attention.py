"""Cross-attention of the BiLSTM against loops over the tokens, and what padding may change."""

from __future__ import annotations

import factories
import numpy as np
import pytest
import torch

from kdedge.errors import UsageError
from kdedge.nn.inference import predict_logits
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import encode
from kdedge.recipe import BiLstmConfig
from kdedge.students.bilstm import BiLstmForSequenceClassification, BiLstmModelConfig
from kdedge.students.build import build_student
from kdedge.students.cross_attention import CrossAttention
from kdedge.students.lstm_states import padded_token_states, token_states

FIRST = [2, 11, 12, 13, 3]
SECOND = [21, 22, 3]


def bilstm() -> BiLstmForSequenceClassification:
    torch.manual_seed(1)
    config = BiLstmModelConfig(
        vocab_size=200,
        embedding_dim=12,
        hidden_size=7,
        head_size=9,
        pair=True,
        cross_attention=True,
        num_labels=3,
    )
    return BiLstmForSequenceClassification(config).eval()


def pooled_by_loops(own: np.ndarray, other: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    """ESIM, equations 11 to 17, for the tokens of one text, with |a - a'| for a - a'."""
    weight = layer.weight.detach().double().numpy()
    bias = layer.bias.detach().double().numpy()
    compared = []
    for state in own:
        scores = np.array([float(np.dot(state, one)) for one in other])
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        aligned = sum(share * one for share, one in zip(shares, other, strict=True))
        features = np.concatenate([state, aligned, np.abs(state - aligned), state * aligned])
        compared.append(np.maximum(weight @ features + bias, 0))
    return np.concatenate([np.mean(compared, axis=0), np.max(compared, axis=0)])


def test_the_head_sees_what_loops_compute() -> None:
    model = bilstm()
    ids = torch.tensor([FIRST + SECOND + [0, 0]])
    types = torch.tensor([[0] * 5 + [1] * 3 + [0, 0]])
    mask = torch.tensor([[1] * 8 + [0, 0]])
    with torch.no_grad():
        a = model.lstm(model.embedding(torch.tensor([FIRST])))[0][0].double().numpy()
        b = model.lstm(model.embedding(torch.tensor([SECOND])))[0][0].double().numpy()
        layer = model.cross_attention.compare
        features = [pooled_by_loops(a, b, layer), pooled_by_loops(b, a, layer)]
        head_input = torch.from_numpy(np.concatenate(features)).float()
        expected = model.classifier(torch.relu(model.dense(head_input)))
        found = model(ids, mask, types).logits[0]
    assert torch.allclose(found, expected, atol=1e-6)


def test_padding_changes_no_logits() -> None:
    task, tokenizer = factories.pair_task(), factories.tokenizer()
    data = encode(tokenizer, task.train.texts, task.train.pairs, 48)
    model, pad = bilstm(), TextClassifier(bilstm(), tokenizer, 48).pad
    together = predict_logits(model, data, pad, batch_tokens=4096)
    alone = predict_logits(model, data, pad, batch_tokens=1)
    assert np.abs(together - alone).max() < 1e-6
    assert np.ptp(alone, axis=0).min() > 1e-3


def test_the_states_of_padding_reach_neither_mean_nor_maximum() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(6, 5, dropout=0.0)
    is_token = torch.arange(4) < torch.tensor([[4], [2], [3], [1]])
    states = torch.randn(4, 4, 6) * is_token[..., None]
    spoiled = torch.where(is_token[..., None], states, 50.0)
    assert torch.equal(attention(states, is_token), attention(spoiled, is_token))


def test_padded_texts_give_the_states_of_packed_ones() -> None:
    """A GPU reads them so: packing would make it wait for the lengths."""
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(7, 5, batch_first=True, bidirectional=True)
    vectors = torch.randn(6, 9, 7, requires_grad=True)
    lengths = torch.tensor([1, 9, 3, 4, 8, 2])
    expected = token_states(lstm, vectors, lengths)
    found = padded_token_states(lstm, vectors, lengths)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    inputs = [vectors, *lstm.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_task_of_single_texts_has_nothing_to_compare() -> None:
    tokenizer = factories.tokenizer()
    teacher = factories.bert(layers=1, vocabulary=len(tokenizer))
    config = BiLstmConfig(cross_attention=True)
    with pytest.raises(UsageError, match="cross_attention"):
        build_student(config, factories.single_task().spec, teacher, tokenizer)


@pytest.mark.parametrize("cross_attention", [False, True])
def test_the_recipe_counts_the_parameters_of_a_pair_model(cross_attention: bool) -> None:
    tokenizer = factories.tokenizer()
    teacher = factories.bert(layers=1, vocabulary=len(tokenizer))
    config = BiLstmConfig(hidden=7, head=9, cross_attention=cross_attention)
    spec = factories.pair_task().spec
    student, _ = build_student(config, spec, teacher, tokenizer)
    expected = config.parameters(len(tokenizer), teacher.config.to_dict(), spec)
    assert expected == student.num_parameters()
