"""Hostile bundles and mutations of a sound one: refused, or the answers do not change.

Every hostile bundle has valid hashes and a valid digest, as a forger would write them. A child
process opens each one and replays its golden texts, with 2 seconds of processor time and 512 MiB
beyond its libraries.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factories
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from forgery import edit_manifest, forge_file
from onnx import TensorProto, helper, numpy_helper

from kdedge.cli.verify import verify
from kdedge.errors import IntegrityError, KdedgeError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.golden import replay
from kdedge.runtime.layout import MANIFEST
from kdedge.runtime.onnx_check import check_graph
from kdedge.runtime.tokenizer_check import check_tokenizer
from kdedge.runtime.untrusted import try_bundle

SECONDS, MEMORY = 2, 512 << 20
TEXTS = ["the film was good", "the plot and cast was dull 42", ""]
Change = Callable[[Path], None]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)


# Graphs


def model(nodes: list[onnx.NodeProto], tensors: list[TensorProto], **settings: Any) -> bytes:
    """Make a graph with the inputs of a classifier and its output `logits`."""
    axes = ["batch", "sequence"]
    inputs = []
    for name in ("input_ids", "attention_mask"):
        inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, axes))
    outputs = settings.pop("outputs", None) or [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = settings.pop("opsets", [helper.make_opsetid("", 17)])
    made = helper.make_model(graph, ir_version=8, opset_imports=opsets, **settings)
    return bytes(made.SerializeToString())


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def table() -> TensorProto:
    values = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    return numpy_helper.from_array(values, "table")


def bag_of_words(*more: onnx.NodeProto, **settings: Any) -> bytes:
    """Make a graph that sums a vector per token, with more nodes beside it."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("ReduceSum", ["each", "one"], ["logits"], keepdims=0),
    ]
    tensors = [table(), ints("one", 1), *settings.pop("tensors", [])]
    return model([*nodes, *more], tensors, **settings)


def body(name: str = "body") -> onnx.GraphProto:
    state = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    out = [helper.make_tensor_value_info("c2", TensorProto.BOOL, [])]
    return helper.make_graph([helper.make_node("Identity", ["c"], ["c2"])], name, state, out)


def loop() -> bytes:
    count = ints("count", 10**15)
    yes = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("Loop", ["count", "yes"], [], body=body())
    return bag_of_words(node, tensors=[count, yes])


def doubling_functions() -> bytes:
    functions = []
    for i in range(40):
        inner = "Neg" if i == 0 else f"F{i - 1}"
        domain = "" if i == 0 else "evil"
        nodes = [
            helper.make_node(inner, ["x"], ["y"], domain=domain),
            helper.make_node(inner, ["y"], ["z"], domain=domain),
        ]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)]
        functions.append(helper.make_function("evil", f"F{i}", ["x"], ["z"], nodes, opsets))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)]
    node = helper.make_node("F39", ["each"], ["never"], domain="evil")
    return bag_of_words(node, functions=functions, opsets=opsets)


def external() -> bytes:
    tensor = TensorProto(name="x", data_type=1, dims=[200, 2], data_location=1)
    tensor.external_data.add(key="location", value="../secret.bin")
    return bag_of_words(tensors=[tensor])


def huge_tensor(*axes: int) -> bytes:
    return bag_of_words(tensors=[TensorProto(name="x", data_type=1, dims=axes, raw_data=b"\0" * 8)])


REFUSED_OPERATORS = """Loop If Scan SequenceMap SequenceConstruct SequenceEmpty Optional
OptionalGetElement StringNormalizer TfIdfVectorizer RegexFullMatch StringSplit StringConcat
RandomNormal RandomUniformLike Multinomial Bernoulli NonMaxSuppression Resize Upsample Det
ImageDecoder DFT STFT MelWeightMatrix Unique NonZero Compress""".split()


def operator(name: str, domain: str = "") -> bytes:
    opsets = [helper.make_opsetid("", 17)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return bag_of_words(helper.make_node(name, ["each"], ["z"], domain=domain), opsets=opsets)


def hostile_output(kind: str) -> bytes:
    info = {
        "a scalar": helper.make_tensor_value_info("logits", TensorProto.FLOAT, []),
        "strings": helper.make_tensor_value_info("logits", TensorProto.STRING, ["batch", 2]),
        "integers": helper.make_tensor_value_info("logits", TensorProto.INT64, ["batch", 2]),
        "three axes": helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "t", 2]),
    }[kind]
    if kind == "a scalar":
        node = helper.make_node("ReduceSum", ["each"], ["logits"], keepdims=0)
    elif kind == "three axes":
        node = helper.make_node("Identity", ["each"], ["logits"])
    else:
        node = helper.make_node("Cast", ["sum"], ["logits"], to=8 if kind == "strings" else 7)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("ReduceSum", ["each", "one"], ["sum"], keepdims=0),
        node,
    ]
    return model(nodes, [table(), ints("one", 1)], outputs=[info])


def sequence_output() -> bytes:
    info = helper.make_tensor_sequence_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("SplitToSequence", ["each"], ["logits"]),
    ]
    return model(nodes, [table()], outputs=[info])


def graphs() -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of hostile ONNX files."""
    yield "a loop of 10^15 steps", loop()
    yield "forty doubling functions", doubling_functions()
    yield "external data", external()
    yield "a flatbuffer of ONNX Runtime", b"\x18\0\0\0ORTM" + b"\0" * 64
    yield "an axis of 2^50", huge_tensor(1 << 50)
    yield "a tensor of 2^36 elements and 8 bytes", huge_tensor(1 << 18, 1 << 18)
    yield "forty axes", huge_tensor(*[1] * 40)
    yield "an operator of another domain", operator("Evil", "evil.ops")
    yield "an operator of ai.onnx.ml", operator("TreeEnsemble", "ai.onnx.ml")
    yield "a fused operator that kdedge does not write", operator("BeamSearch", "com.microsoft")
    yield "opset 999", bag_of_words(opsets=[helper.make_opsetid("", 999)])
    yield "opset 1", bag_of_words(opsets=[helper.make_opsetid("", 1)])
    yield (
        "60,000 nodes",
        bag_of_words(*(helper.make_node("Neg", ["each"], [f"n{i}"]) for i in range(60_000))),
    )
    yield "60,000 tensors", bag_of_words(tensors=[ints(f"t{i}", 1) for i in range(60_000)])
    yield "no graph", onnx.ModelProto(ir_version=8).SerializeToString()
    yield (
        "two graphs",
        bag_of_words() + onnx.ModelProto(graph=onnx.GraphProto()).SerializeToString(),
    )
    yield "a number without end", b"\x08" + b"\xff" * 100
    yield "a field that is too long", b"\x3a\xff\xff\xff\xff\x7f"
    yield "a pickle", b"\x80\x04cos\nsystem\n(S'true'\ntR."
    yield "nothing", b""
    yield "a sequence as output", sequence_output()
    for name in REFUSED_OPERATORS:
        yield f"the operator {name}", operator(name)
    for name in ("a scalar", "strings", "integers", "three axes"):
        yield f"{name} as output", hostile_output(name)


# Tokenizers


def tokenizer_json() -> dict[str, Any]:
    path = factories.tiny_bundle("bilstm") / "tokenizer.json"
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def replace_chain(count: int) -> dict[str, Any]:
    one = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return {"type": "Sequence", "normalizers": [one] * count}


def template(pieces: int) -> dict[str, Any]:
    document: dict[str, Any] = tokenizer_json()["post_processor"]
    piece = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    return {**document, "single": [piece] * pieces + document["single"]}


def nested(depth: int) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(depth):
        component = {"type": "Sequence", "normalizers": [component]}
    return component


def many_ids(count: int) -> dict[str, Any]:
    document: dict[str, Any] = tokenizer_json()["post_processor"]
    token = {"id": "[CLS]", "ids": [2] * count, "tokens": ["[CLS]"] * count}
    return {**document, "special_tokens": {**document["special_tokens"], "[CLS]": token}}


def tokenizers() -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of hostile tokenizer.json files."""
    sound = tokenizer_json()

    def changed(**parts: Any) -> bytes:
        return json.dumps({**sound, **parts}).encode()

    words = sound["model"]
    split = {"type": "Split", "pattern": {"Regex": "(a+)+" * 300}, "behavior": "Isolated"}
    yield "a chain of 40 doubling replacements", changed(normalizer=replace_chain(40))
    yield "a chain of 12 doubling replacements", changed(normalizer=replace_chain(12))
    yield "a template of 10^5 pieces", changed(post_processor=template(100_000))
    yield "a special token of 10^6 ids", changed(post_processor=many_ids(1_000_000))
    yield "a sequence in a sequence, 200 deep", changed(normalizer=nested(200))
    yield (
        "a sequence of 1,000 parts",
        changed(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 1000}),
    )
    yield "a pattern of 1,500 characters", changed(pre_tokenizer={**split, "invert": False})
    yield (
        "a prefix of a million characters",
        changed(normalizer={"type": "Prepend", "prepend": "a" * 10**6}),
    )
    yield (
        "words of a million characters",
        changed(model={**words, "max_input_chars_per_word": 10**6}),
    )
    yield (
        "30,000 added tokens",
        changed(added_tokens=[{"id": i, "content": f"x{i}"} for i in range(30_000)]),
    )
    yield "an unknown model", changed(model={"type": "Evil", "vocab": {}})
    yield "a model without vocabulary", changed(model={"type": "WordPiece"})
    yield "an unknown normalizer", changed(normalizer={"type": "Evil"})
    yield "an unknown pre-tokenizer", changed(pre_tokenizer={"type": "Evil"})
    yield "an unknown post-processor", changed(post_processor={"type": "Evil"})
    yield "an unknown decoder", changed(decoder={"type": "Evil"})
    yield "an unknown part", changed(auto_map={"AutoTokenizer": "evil.py"})
    yield "a list as normalizer", changed(normalizer=[1, 2])
    yield "a number as model", changed(model=7)
    yield "no model", changed(model=None)
    yield "a normalizer without type", changed(normalizer={"x": 1})
    yield "deep JSON", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "seven million brackets", b"[" + b"[]," * 3_500_000 + b"1]"
    yield "a number of 10^5 digits", b'{"model": ' + b"9" * 100_000 + b"}"
    yield "half a JSON", json.dumps(sound).encode()[:1000]
    yield "bytes that are no text", b"\xff\xfe\x00"
    yield "an empty tokenizer", b""
    yield "a huge id", changed(model={**words, "vocab": {**words["vocab"], "film": (1 << 32) - 2}})


# Golden answers and configuration


def golden(change: Callable[[dict[str, Any]], Any]) -> Change:
    def forge_golden(folder: Path) -> None:
        document = json.loads((folder / "golden.json").read_text())
        change(document)
        forge_file(folder, "golden.json", json.dumps(document).encode())

    return forge_golden


def row_change(**values: Any) -> Change:
    return golden(lambda document: document["rows"][0].update(values))


def goldens() -> Iterator[tuple[str, Change]]:
    """Yield name and change of hostile golden.json files."""
    digits = 10**400
    yield "a logit of 400 digits", row_change(logits={"fp32": [digits, 1], "int8": [1, 1]})
    yield "a tolerance of 400 digits", golden(lambda d: d["tolerance"].update(fp32=digits))
    yield "300,000 rows", golden(lambda d: d.update(rows=d["rows"][:1] * 300_000))
    yield "1,001 rows", golden(lambda d: d.update(rows=(d["rows"] * 63)[:1001]))
    yield "no rows", golden(lambda d: d.update(rows=[]))
    yield "rows that are text", golden(lambda d: d.update(rows="abc"))
    yield "a row that is a number", golden(lambda d: d.update(rows=[7]))
    yield "another label", row_change(labels={"fp32": "evil", "int8": "evil"})
    yield "labels that are a number", row_change(labels=7)
    yield "logits that are text", row_change(logits={"fp32": "ab", "int8": "ab"})
    yield "too many logits", row_change(logits={"fp32": [1] * 3, "int8": [1] * 3})
    yield "a text that is a number", row_change(text=7)
    yield "half a character", row_change(text="\ud800")
    yield "token ids that are text", row_change(input_ids="abc")
    yield "a row with a second text", row_change(pair="x")
    for name in ("golden.json", "config.json"):
        yield f"{name} nests 10^5 deep", file_change(name, b"[" * 100_000)
        yield f"{name} has 3 million brackets", file_change(name, b"[" + b"[]," * 1_500_000 + b"1]")
    yield "config.json with other labels", file_change("config.json", b'{"id2label": {"0": "x"}}')
    yield "config.json with a list of labels", file_change("config.json", b'{"id2label": [1]}')


def file_change(name: str, content: bytes) -> Change:
    return lambda folder: forge_file(folder, name, content)


# Manifests and folders


def field(**values: Any) -> Change:
    return lambda folder: edit_manifest(folder, lambda document: document.update(values))


def sparse(folder: Path) -> None:
    """List a file of 1.9 GB that takes no space on the disk."""
    path = folder / "README.md"
    size = 1_900_000_000
    os.truncate(path, size)
    entry = {"sha256": "0" * 64, "bytes": size}
    edit_manifest(folder, lambda document: document["files"].update({"README.md": entry}))


def linked(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/passwd")


def manifests() -> Iterator[tuple[str, Change]]:
    """Yield name and change of hostile manifests and folders."""
    yield "max_length 2^20", field(max_length=1 << 20)
    yield "max_length 8,193", field(max_length=8193)
    yield "an unknown field", field(auto_map={"x": "evil.py"})
    yield "a path out of the folder", field(precisions={"fp32": "../../model.onnx"})
    yield "a listed file of 1.9 GB", sparse
    yield "a link out of the folder", linked
    yield "a pipe", lambda folder: os.mkfifo(folder / "pipe")
    yield "a file of Python", lambda folder: (folder / "evil.py").write_text("x") and None
    yield (
        "a pickle of weights",
        lambda folder: (folder / "pytorch_model.bin").write_text("x") and None,
    )
    yield (
        "swapped labels",
        lambda folder: edit_manifest(folder, lambda d: d["spec"]["labels"].reverse()),
    )
    yield "another pad id", field(pad_token_id=-1)
    yield "a format of the future", field(format=2)
    yield "no files", field(files={})


@dataclass(frozen=True)
class Attack:
    name: str
    change: Change


def attacks() -> list[Attack]:
    made = []
    for name, content in graphs():
        made.append(Attack(f"graph: {name}", file_change("onnx/model.onnx", content)))
    for name, content in tokenizers():
        made.append(Attack(f"tokenizer: {name}", file_change("tokenizer.json", content)))
    made += [Attack(f"golden: {name}", change) for name, change in goldens()]
    made += [Attack(f"manifest: {name}", change) for name, change in manifests()]
    return made


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limits of memory on this system")
def test_hostile_bundles_are_refused_within_time_and_memory(tmp_path: Path) -> None:
    made = attacks()
    assert len(made) >= 100
    accepted = []
    for number, attack in enumerate(made):
        folder = tmp_path / str(number)
        shutil.copytree(factories.tiny_bundle("bilstm"), folder)
        attack.change(folder)
        if not is_refused(folder):
            accepted.append(attack.name)
        shutil.rmtree(folder)
    assert not accepted


def is_refused(folder: Path) -> bool:
    """Open a bundle and replay it in a child with limits; any other end than an error counts."""
    try:
        try_bundle(Bundle.open(folder), seconds=SECONDS, memory=MEMORY)
    except KdedgeError as error:
        return "child process" not in error.message
    return False


def test_a_sound_bundle_passes_the_child(bundle: Path) -> None:
    try_bundle(Bundle.open(bundle), seconds=30, memory=MEMORY)


def test_verify_tries_an_untrusted_bundle_first(bundle: Path) -> None:
    done = CliRunner().invoke(verify, [str(bundle), "--untrusted"])
    assert done.exit_code == 0, done.exception
    assert "trying the bundle in a child process" in done.stderr
    forge_file(bundle, "onnx/model.onnx", loop())
    done = CliRunner().invoke(verify, [str(bundle), "--untrusted"])
    assert isinstance(done.exception, IntegrityError)
    assert "a graph as an attribute" in done.exception.detail


@pytest.mark.parametrize("kind", ["doubling", "repeated"])
def test_what_a_check_cannot_bound_ends_in_the_child(bundle: Path, kind: str) -> None:
    """Known operators alone can need endless memory: the child ends, this process goes on."""
    nodes, last = [], "each"
    if kind == "doubling":
        for i in range(36):
            nodes.append(helper.make_node("Concat", [last, last], [f"d{i}"], axis=2))
            last = f"d{i}"
    else:
        shape = ints("shape", 1, 1 << 16, 1 << 16)
        nodes.append(helper.make_node("Expand", ["each", "shape"], ["big"]))
        last = "big"
    sums = helper.make_node("ReduceSum", [last, "axes"], ["extra"], keepdims=0)
    add = helper.make_node("Add", ["sum", "extra"], ["logits"])
    gather = helper.make_node("Gather", ["table", "input_ids"], ["each"])
    first = helper.make_node("ReduceSum", ["each", "one"], ["sum"], keepdims=0)
    tensors = [table(), ints("one", 1), ints("axes", 1, 2)]
    if kind == "repeated":
        tensors.append(shape)
    keep = helper.make_node("Unsqueeze", ["extra", "one"], ["column"])
    add = helper.make_node("Add", ["sum", "column"], ["logits"])
    content = model([gather, first, *nodes, sums, keep, add], tensors)
    check_graph(content)
    forge_file(bundle, "onnx/model.onnx", content)
    with pytest.raises(KdedgeError):
        try_bundle(Bundle.open(bundle), seconds=30, memory=MEMORY)


def test_sound_files_pass_the_checks() -> None:
    for kind, task in (("bert", "pair"), ("bilstm", "single"), ("bilstm", "pair")):
        folder = factories.tiny_bundle(kind, task)
        for path in folder.rglob("*.onnx"):
            check_graph(path.read_bytes())
        check_tokenizer((folder / "tokenizer.json").read_bytes())


def test_graphs_are_refused_before_a_session_exists(bundle: Path) -> None:
    for _, content in graphs():
        forge_file(bundle, "onnx/model.onnx", content)
        with pytest.raises(IntegrityError):
            Classifier.load(bundle, "fp32")


# Mutations


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """Flip a bit, cut, append, swap two bytes, repeat or erase a part."""
    size = len(content)
    place, other = (int(value) for value in random.integers(0, size, 2))
    low, high = sorted((place, other))
    changed = bytearray(content)
    kind = int(random.integers(6))
    if kind == 0:
        changed[place] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        changed += random.bytes(int(random.integers(1, 64)))
    elif kind == 3:
        changed[place], changed[other] = changed[other], changed[place]
    elif kind == 4:
        changed[place:place] = changed[low : low + 40]
    else:
        changed[low : min(high, low + 40)] = b"\0" * (min(high, low + 40) - low)
    return bytes(changed)


def mutate_everywhere(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Mutate the files of a bundle in turn; return how many were refused, or the same bundle."""
    whole = Bundle.open(folder)
    names = sorted((*whole.manifest.files, MANIFEST))
    contents = {name: (folder / name).read_bytes() for name in names}
    random = np.random.default_rng(seed)
    results = {"refused": 0, "unchanged": 0, "changed": 0}
    for number in range(count):
        name = names[number % len(names)]
        (folder / name).write_bytes(mutate(contents[name], random))
        try:
            opened = Bundle.open(folder)
            opened.verify_files()
        except KdedgeError:
            results["refused"] += 1
        else:
            same = dict(opened.contents) == dict(whole.contents)
            equal = same and opened.manifest == whole.manifest
            results["unchanged" if equal else "changed"] += 1
        (folder / name).write_bytes(contents[name])
    return results


@pytest.mark.parametrize(
    "count", [300, pytest.param(10_000, marks=pytest.mark.soak)], ids=["300", "10000"]
)
def test_mutations_are_refused_or_change_nothing(bundle: Path, count: int) -> None:
    before = Classifier.load(bundle, "fp32").logits(TEXTS)
    results = mutate_everywhere(bundle, count, seed=count)
    assert results["changed"] == 0
    assert results["refused"] > 0.9 * count
    assert np.array_equal(Classifier.load(bundle, "fp32").logits(TEXTS), before)
    replay(Bundle.open(bundle))
