"""From a trained classifier to one self-contained ONNX graph in fp32."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from kdedge.export.graph_writer import GraphWriter
from kdedge.export.registry import find_export
from transformers import PreTrainedModel

from kdedge.errors import CheckFailed, MachineError, first_line


def to_onnx(model: PreTrainedModel) -> onnx.ModelProto:
    """Return a graph from int64 inputs (batch, sequence) to float32 `logits` (batch, C).

    Batch and sequence are dynamic. The models of `EXPORTS` are written from their weights; any
    other architecture is traced.

    Raises:
        CheckFailed: If the model is in training mode, so that dropout would disturb its outputs.
        MachineError: If torch cannot trace the architecture.
    """
    if model.training:
        raise CheckFailed(
            "a model must be in evaluation mode to be exported",
            type(model).__name__,
            "call .eval() first",
        )
    config = model.config
    export = find_export(model)
    if export is None or not export.can_write(config):
        return trace(model)
    writer = GraphWriter(export.inputs(config))
    export.write(model, writer)
    return writer.model(config.num_labels)


def trace(model: PreTrainedModel) -> onnx.ModelProto:
    """Return the graph of any classifier of transformers, by torch.onnx's dynamo exporter."""
    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    try:
        graph = _traced(model, names)
    except Exception as error:
        raise MachineError(
            "torch cannot export this architecture",
            f"{type(model).__name__}: {first_line(error.__cause__ or error)}",
            "use a BERT-like model",
        ) from error
    # ONNX Runtime's quantizer stops if it infers other shapes than the exporter did (#25890).
    del graph.graph.value_info[:]
    _strip_notes(graph)
    onnx.checker.check_model(graph)
    return graph


def _traced(model: PreTrainedModel, names: list[str]) -> onnx.ModelProto:
    sample = tuple(torch.ones(2, 7, dtype=torch.long) for _ in names)
    longest = getattr(model.config, "max_position_embeddings", None) or 512
    shape = {
        0: torch.export.Dim("batch", min=1, max=4096),
        1: torch.export.Dim("sequence", min=1, max=longest),
    }
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # They address the exporter's own developers.
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            _LogitsOnly(model, names).eval(),
            sample,
            str(path),
            dynamo=True,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=((shape,) * len(names),),
            external_data=False,
            verbose=False,
        )
        return onnx.load(str(path))


def _strip_notes(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they name folders of this machine and are long."""
    graph = model.graph
    for nodes in ([model, graph], graph.node, graph.initializer, graph.input, graph.output):
        for node in nodes:
            node.doc_string = ""
            del node.metadata_props[:]


class _LogitsOnly(torch.nn.Module):
    """A classifier with positional inputs and the bare logits as output."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits
