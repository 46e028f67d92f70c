"""From a trained classifier to one self-contained ONNX graph in fp32."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from kdedge.export.bert_graph import ACTIVATIONS, write_bert
from kdedge.export.bilstm_graph import write_bilstm
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.errors import CheckFailed, MachineError, first_line
from kdedge.students.bilstm import BiLstmForSequenceClassification


def to_onnx(model: PreTrainedModel) -> onnx.ModelProto:
    """Inputs int64 (batch, sequence), output `logits` float32 (batch, C); batch and sequence are dynamic.

    BERT and BiLSTM are written from their weights; any other architecture is traced.
    Raises GateFailed for a model left in training mode: its reference would be noisy.
    """
    if model.training:
        raise CheckFailed(
            "a model must be in evaluation mode to be exported",
            type(model).__name__,
            "call .eval() first",
        )
    if isinstance(model, BiLstmForSequenceClassification):
        return write_bilstm(model).model(model.config.num_labels)
    if isinstance(model, BertForSequenceClassification) and model.config.hidden_act in ACTIVATIONS:
        return write_bert(model).model(model.config.num_labels)
    return trace(model)


def trace(model: PreTrainedModel) -> onnx.ModelProto:
    """Any classifier of transformers through torch.onnx's dynamo exporter, as one file in memory.

    Raises MachineError where torch cannot export the architecture.
    """
    names = ["input_ids", "attention_mask"] + (
        ["token_type_ids"] if getattr(model.config, "type_vocab_size", 0) > 1 else []
    )
    sample = {name: torch.ones(2, 7, dtype=torch.long) for name in names}
    batch, sequence = (
        torch.export.Dim("batch", min=1, max=4096),
        torch.export.Dim("sequence", min=1, max=_positions(model)),
    )
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter talks to its own developers
            path = Path(folder) / "model.onnx"
            torch.onnx.export(
                _LogitsOnly(model, names).eval(),
                tuple(sample.values()),
                str(path),
                dynamo=True,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(tuple({0: batch, 1: sequence} for _ in names),),
                external_data=False,
                verbose=False,
            )
            traced = onnx.load(str(path))
    except Exception as error:
        found = f"{type(model).__name__}: {first_line(error.__cause__ or error)}"
        raise MachineError(
            "torch cannot export this architecture", found, "use a BERT-like model"
        ) from error
    # ORT's quantizer stops at shapes that the exporter inferred and it infers otherwise (onnxruntime #25890).
    del traced.graph.value_info[:]
    _strip_notes(traced)
    onnx.checker.check_model(traced)
    return traced


def _strip_notes(model: onnx.ModelProto) -> None:
    """Without the exporter's notes: they name this machine's folders and are longer than a small student."""
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.initializer,
        *model.graph.input,
        *model.graph.output,
    ):
        part.doc_string = ""
        del part.metadata_props[:]


class _LogitsOnly(torch.nn.Module):
    """A classifier that takes its inputs by position and answers a bare tensor."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def _positions(model: PreTrainedModel) -> int:
    """Most tokens a sequence may have, for the exporter; a text's own limit is the bundle's max_length."""
    return int(getattr(model.config, "max_position_embeddings", None) or 512)
