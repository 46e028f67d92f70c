"""Check an ONNX file before ONNX Runtime loads it: only operators that kdedge writes.

The check reads the file's structure without the package onnx, which devices do not have. Numbers of
fields are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kdedge.errors import IntegrityError
from kdedge.runtime.protobuf import Value, fields, part, text, varints

OPERATORS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        """Abs Add And Cast CastLike Ceil Clip Concat Constant ConstantOfShape Conv CumSum
        DequantizeLinear Div DynamicQuantizeLinear Einsum Equal Erf Exp Expand Flatten Floor Gather
        GatherElements GatherND Gelu Gemm Greater GreaterOrEqual GroupNormalization Identity IsInf
        IsNaN LSTM LayerNormalization Less LessOrEqual Log LogSoftmax MatMul MatMulInteger Max Min
        Mod Mul Neg Not Or Pad Pow QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal
        ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
        RotaryEmbedding Round ScatterElements ScatterND Shape Sigmoid Sign Size Slice Softmax
        Softplus Split Sqrt Squeeze Sub Sum Swish Tanh Tile Transpose Trilu Unsqueeze Where
        Xor""".split()
    ),
    "com.microsoft": frozenset(
        """Attention BiasGelu DequantizeLinear DynamicQuantizeLSTM DynamicQuantizeMatMul
        EmbedLayerNormalization FastGelu FusedMatMul Gelu MatMulIntegerToFloat MultiHeadAttention
        QAttention QuantizeLinear QuickGelu SkipLayerNormalization""".split()
    ),
}
"""Domain -> operators without subgraphs that kdedge or its exporters write."""

OPSETS = {"": range(13, 27), "ai.onnx": range(13, 27), "com.microsoft": range(1, 2)}
"""Domain -> versions of its operators that a file may use."""

IGNORED_DOMAINS = frozenset(
    """ai.onnx.ml ai.onnx.training ai.onnx.preview.training com.microsoft.nchwc com.ms.internal.nhwc
    com.microsoft.experimental org.pytorch.aten pkg.onnxscript.torch_lib
    pkg.onnxscript.torch_lib.common""".split()
)
"""Domains that exporters import and no node uses."""

MAX_NODES = 50_000
MAX_INITIALIZERS = 50_000
MAX_ATTRIBUTES = 64
MAX_AXES = 16
MAX_NAME = 1024
FREE_ELEMENTS = 16
"""Larger tensors must have their values in the file."""

# Numbers of fields
MODEL_GRAPH, MODEL_OPSETS, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 8, 20, 25
GRAPH_NODES, GRAPH_INITIALIZERS, GRAPH_SPARSE = 1, 5, 15
GRAPH_INPUTS, GRAPH_OUTPUTS = 11, 12
NODE_INPUTS, NODE_OUTPUTS, NODE_KIND, NODE_ATTRIBUTES, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS = 5, 10
ATTRIBUTE_REFUSED = {6: "a graph", 11: "graphs", 22: "a sparse tensor", 23: "sparse tensors"}
ATTRIBUTE_REFERENCE = 21
TENSOR_AXES, TENSOR_TYPE, TENSOR_SEGMENT = 1, 2, 3
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14
TENSOR_VALUES = frozenset((4, 5, 6, 7, 9, 10, 11))

BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
"""Type of a tensor -> bits of an element in raw data."""


def check_graph(content: bytes) -> None:
    """Refuse an ONNX file that contains anything that kdedge does not write.

    Refused are operators outside of `OPERATORS`, subgraphs (Loop, If, Scan), functions, external
    and sparse data, tensors whose size differs from their shape, and too many nodes or tensors.

    Raises:
        IntegrityError: If the file is no ONNX model, or holds one of these.

    Example:
        ```python
        check_graph(Path("bundle/onnx/model.onnx").read_bytes())
        ```
    """
    if content[4:8] == b"ORTM":
        raise _refused("it is in the format of ONNX Runtime, not ONNX")
    try:
        _check_model(memoryview(content))
    except ValueError as error:
        raise _refused(f"it is not an ONNX model: {error}") from error


def _check_model(model: memoryview) -> None:
    graphs = []
    for number, value in fields(model):
        if number == MODEL_GRAPH:
            graphs.append(part(value))
        elif number == MODEL_OPSETS:
            _check_opset(part(value))
        elif number == MODEL_FUNCTIONS:
            raise _refused("it defines functions")
        elif number == MODEL_TRAINING:
            raise _refused("it holds a training graph")
    if len(graphs) != 1:
        raise _refused(f"it holds {len(graphs)} graphs instead of one")
    _check_graph(graphs[0])


def _check_opset(opset: memoryview) -> None:
    domain, version = "", 0
    for number, value in fields(opset):
        if number == 1:
            domain = text(value)
        elif number == 2 and isinstance(value, int):
            version = value
    if domain in IGNORED_DOMAINS:
        return
    if version not in OPSETS.get(domain, ()):
        raise _refused(f"it uses version {version} of the operators {domain or 'ai.onnx'!r}")


def _check_graph(graph: memoryview) -> None:
    nodes = initializers = 0
    for number, value in fields(graph):
        if number == GRAPH_NODES:
            nodes += 1
            _check_node(part(value))
        elif number == GRAPH_INITIALIZERS:
            initializers += 1
            _check_tensor(part(value))
        elif number == GRAPH_SPARSE:
            raise _refused("it holds a sparse tensor")
        if nodes > MAX_NODES or initializers > MAX_INITIALIZERS:
            raise _refused(f"it has more than {MAX_NODES:,} nodes or {MAX_INITIALIZERS:,} tensors")


def _check_node(node: memoryview) -> None:
    kind, domain, attributes = "", "", 0
    for number, value in fields(node):
        if number == NODE_KIND:
            kind = text(value)
        elif number == NODE_DOMAIN:
            domain = text(value)
        elif number == NODE_ATTRIBUTES:
            attributes += 1
            _check_attribute(part(value))
    if domain == "ai.onnx":
        domain = ""
    if kind not in OPERATORS.get(domain, ()):
        name = f"{domain}.{kind}" if domain else kind
        raise _refused(f"it uses the operator {name[:MAX_NAME]!r}, which kdedge does not write")
    if attributes > MAX_ATTRIBUTES:
        raise _refused(f"a node has {attributes} attributes")


def _check_attribute(attribute: memoryview) -> None:
    for number, value in fields(attribute):
        if number in ATTRIBUTE_REFUSED:
            raise _refused(f"a node has {ATTRIBUTE_REFUSED[number]} as an attribute")
        if number == ATTRIBUTE_REFERENCE:
            raise _refused("a node refers to an attribute of a function")
        if number in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
            _check_tensor(part(value))


def _check_tensor(tensor: memoryview) -> None:
    axes: list[int] = []
    kind = stored = 0
    for number, value in fields(tensor):
        if number == TENSOR_AXES:
            axes += _axes(value, MAX_AXES - len(axes))
        elif number == TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == TENSOR_EXTERNAL or (number == TENSOR_LOCATION and value):
            raise _refused("a tensor is stored in another file")
        elif number == TENSOR_SEGMENT:
            raise _refused("a tensor is stored in segments")
        elif number in TENSOR_VALUES:
            stored += 8 if isinstance(value, int) else len(value)
    _check_size(axes, kind, stored)


def _axes(value: Value, most: int) -> Iterator[int]:
    for count, axis in enumerate(varints(value)):
        if count >= most:
            raise _refused(f"a tensor has more than {MAX_AXES} axes")
        if axis >= 1 << 40:
            raise _refused(f"a tensor has an axis of {axis} elements")
        yield axis


def _check_size(axes: list[int], kind: int, stored: int) -> None:
    """Compare the elements of a tensor with its bytes: a packed number has at least one byte."""
    elements = 1
    for axis in axes:
        elements *= axis
    bits = BITS.get(kind)
    if bits is None and kind not in (8, 17, 18, 19, 20, 21, 22, 23):
        raise _refused(f"a tensor has the unknown type {kind}")
    if elements > FREE_ELEMENTS and stored < elements // 2:
        raise _refused(f"a tensor of {elements:,} elements has {stored:,} bytes")


def _refused(reason: str) -> IntegrityError:
    return IntegrityError(
        "ONNX Runtime cannot load the graph of this bundle safely",
        f"the ONNX file is refused: {reason}",
        "do not use this bundle, or export it again with this kdedge",
    )
