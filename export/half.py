"""The 16-bit file: the fp32 graph with weights and activations in fp16, for GPUs.

Inputs stay int64 and the logits fp32. ONNX Runtime's own converter does the work.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
from kdedge.export.options import ExportOptions
from kdedge.export.registry import find_export
from onnxruntime.transformers.float16 import convert_float_to_float16
from transformers import PreTrainedModel

from kdedge.errors import UsageError
from kdedge.run.progress import Progress

FP16 = "fp16"


def to_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of an fp32 graph that computes in fp16 between its inputs and its logits."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    half = convert_float_to_float16(copy, keep_io_types=True)
    # The converter infers the shapes of all results; ONNX Runtime does so itself.
    del half.graph.value_info[:]
    return half


def without_useless_half(
    model: PreTrainedModel, name: str, options: ExportOptions, progress: Progress
) -> ExportOptions:
    """Leave the 16-bit file out if it makes no sense for this model, and say so.

    Args:
        model: The classifier.
        name: Its name in messages.
        options: What the user asks for.
        progress: Receives the message.

    Raises:
        UsageError: If the user asks for no other file.
    """
    export = find_export(model)
    if FP16 not in options.precisions or (export is not None and export.gains_from_half):
        return options
    others = tuple(precision for precision in options.precisions if precision != FP16)
    if not others:
        raise UsageError(
            "only a BERT, such as a TinyBERT student, has a 16-bit file",
            f"{name} is a {type(model).__name__}",
            "use --precision fp32 for a GPU: an LSTM waits for its tokens one by one, so 16 bits "
            "gain it little; or --precision int8 for a CPU",
        )
    progress.say(f"{name}: no 16-bit file, which only a BERT has ({type(model).__name__})")
    return replace(options, precisions=others)
