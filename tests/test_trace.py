"""A second architecture through torch's exporter: RoBERTa counts its positions from its own padding."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from kdedge.export.graph import to_onnx
from transformers import RobertaConfig, RobertaForSequenceClassification


def test_a_tiny_roberta_is_traced_and_answers_as_torch_does() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = RobertaConfig(
            vocab_size=120,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
            type_vocab_size=1,
            pad_token_id=1,
            initializer_range=0.3,
            num_labels=3,
        )
        model = RobertaForSequenceClassification(config).eval()
    graph = to_onnx(model)
    assert [item.name for item in graph.graph.input] == ["input_ids", "attention_mask"]
    session, random, seen = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]), np.random.default_rng(4), []
    for rows, length in ((1, 1), (1, 2), (3, 9), (8, 17), (2, 37)):
        lengths = random.integers(1, length + 1, rows)
        lengths[0] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        inputs = {"input_ids": np.where(mask, random.integers(5, 120, (rows, length)), 1), "attention_mask": mask}
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits.numpy()
        answers = session.run(["logits"], inputs)[0]
        assert np.abs(answers - expected).max() <= 1e-5 and (answers.argmax(1) == expected.argmax(1)).all(), (rows, length)
        seen.append(expected)
    assert np.ptp(np.concatenate(seen), axis=0).min() > 1e-2, "answers must differ for this to show anything"
