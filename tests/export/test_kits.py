"""The kits compile, run, and compute what the Python runtime computes."""

from __future__ import annotations

import ctypes
import json
import platform
import shutil
import subprocess
from pathlib import Path

import factories
import numpy as np
import pytest
from click.testing import CliRunner
from forgery import edit_manifest
from kdedge.export.kits.write import KITS, write_kits
from kdedge.export.target import outdated_copies
from kit_tools import (
    change_tokenizer,
    install_node_modules,
    onnxruntime_folder,
    other_bundle,
    require,
    run,
    set_temperature,
    static_bilstm,
    static_bundle,
)
from odd_texts import LONG_TEXTS, odd_texts

from kdedge.cli.export_kits import write_all_kits
from kdedge.cli.main import cli
from kdedge.errors import IntegrityError, UsageError
from kdedge.runtime import Bundle, Classifier
from kdedge.runtime.layout import MANIFEST

pytestmark = pytest.mark.slow  # Compilers run for most tests.

SANITIZERS = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"
OTHER_TASKS = ("pair", "multilabel", "regression")
LARGEST_DIFFERENCE = 1e-5
"""Of the C kit's logits from ONNX Runtime's, unless an activation lies between two integers."""


def cpu_has_avx2() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and " avx2 " in flags.read_text()


@pytest.fixture(scope="module")
def bilstm(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return static_bilstm(tmp_path_factory.mktemp("bilstm") / "bundle")


@pytest.fixture(scope="module")
def onnxruntime_kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxruntime_folder(tmp_path_factory.mktemp("onnxruntime"))


def bundle_of(kind: str, task: str, folder: Path) -> Path:
    """Return a bundle of a BERT, or of a BiLSTM with static ranges."""
    if kind == "bilstm":
        return static_bilstm(folder / "bundle", task).folder
    return factories.copy_bundle(factories.tiny_bundle(kind, task), folder)


def assert_golden(output: str) -> None:
    """Require what `kdedge verify` requires, and all labels."""
    assert "82 golden texts: 82 with equal tokens, 82 with equal labels" in output
    assert "passed" in output


def c_logits(kit: Path, flags: str, texts: list[str], outputs: int) -> np.ndarray:
    """Compile the C file as a library and call it: logits (N, C)."""
    library = kit / "model.so"
    run("gcc", "-std=c11", "-O3", *flags.split(), "-shared", "-fPIC", kit / "kdedge_model.c",
        "-o", library, "-lm")  # fmt: skip
    function = ctypes.CDLL(str(library)).kdedge_predict_bytes
    function.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
    ]
    logits = np.full((len(texts), outputs), np.nan, np.float32)
    for text, row in zip(texts, logits, strict=True):
        content = text.encode()
        assert function(content, len(content), None, 0, row.ctypes.data) == 0
    return logits


@pytest.mark.parametrize("flags", ["-U__SSE2__", "-march=x86-64", "-mavx2"])
def test_c_computes_the_logits_of_onnxruntime(bilstm: Bundle, flags: str) -> None:
    require("gcc")
    if platform.machine() != "x86_64" or not cpu_has_avx2():
        pytest.skip("this CPU has no AVX2")
    kit = write_kits(bilstm, ["c"])[0]
    texts = [*factories.sentences(300, seed=9)[0], *LONG_TEXTS, *odd_texts(300)]
    classifier = Classifier.load(bilstm.folder, "int8", threads=1)
    expected = classifier.logits(texts)
    actual = c_logits(kit, flags, texts, classifier.spec.outputs)
    differences = np.abs(actual - expected).max(1)
    assert np.mean(differences <= LARGEST_DIFFERENCE) > 0.99
    assert differences.max() < 0.1
    assert np.array_equal(actual.argmax(1), expected.argmax(1))


@pytest.mark.parametrize(
    "task",
    ["single", *(pytest.param(task, marks=pytest.mark.slow) for task in OTHER_TASKS)],
)
def test_c_replays_golden_texts_under_sanitizers(tmp_path: Path, task: str) -> None:
    require("gcc", "make")
    kit = write_kits(static_bilstm(tmp_path / "bundle", task), ["c"])[0]
    flags = f"-O1 -Wall -Wextra -Werror {SANITIZERS}"
    assert_golden(run("make", "-s", "-C", kit, f"CFLAGS={flags}", "test"))


def test_golden_test_fails_for_other_weights(bilstm: Bundle, tmp_path: Path) -> None:
    require("gcc", "make")
    kit = Path(shutil.copytree(write_kits(bilstm, ["c"])[0], tmp_path / "kit"))
    source = (kit / "kdedge_model.c").read_text(encoding="utf-8")
    (kit / "kdedge_model.c").write_text(source.replace("KD_ROW_SCALE 0x1.", "KD_ROW_SCALE 0x3."))
    with pytest.raises(AssertionError, match="FAILED"):
        run("make", "-s", "-C", kit, "test")


def test_c_runs_on_arm(bilstm: Bundle) -> None:
    require("aarch64-linux-gnu-gcc", "qemu-aarch64")
    kit = write_kits(bilstm, ["c"])[0]
    program = kit / "golden_arm"
    run("aarch64-linux-gnu-gcc", "-std=c11", "-O3", "-static", kit / "golden_test.c", "-o", program,
        "-lm")  # fmt: skip
    assert_golden(run("qemu-aarch64", program))


STDIN = {
    "single": (
        b"one\rtwo\xe2\x80\xa6\nfive\r\n\n",
        [("one\rtwo\u2026",), ("five",), ("",)],
    ),
    "pair": (
        b"the film\twas\rbad\r\n\n \xe3\x80\x80\r\nit\twas lovely",
        [("the film", "was\rbad"), ("", ""), ("", ""), ("it", "was lovely")],
    ),
}
"""Task -> what a program reads, and the texts of the lines that it must print."""


def assert_reads_lines(bundle: Bundle, task: str, kit: Path, *command: str) -> None:
    """Require one answer for each line, and an error for a line that is no pair."""
    content, rows = STDIN[task]
    lines = run(*command, folder=kit, stdin=content).splitlines()
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert_printed(line, bundle.folder, *row)
    if task == "pair":
        done = subprocess.run(command, cwd=kit, input=b"\none\ttwo\nalone\n", capture_output=True)
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == 2
        assert done.stderr == b"error: line 3 has no tab between its two texts\n"


def assert_printed(line: str, bundle: Path, *texts: str) -> None:
    """Require that a kit's program prints label and probability of the Python runtime."""
    classifier = Classifier.load(bundle, "int8")
    assert classifier.temperature != 1
    prediction = classifier.predict(*texts)
    label, probability = line.rstrip("\n").split("\t")
    assert label == prediction.label
    assert float(probability) == pytest.approx(prediction.score, abs=1e-4)


def test_c_reads_lines(tmp_path: Path) -> None:
    require("gcc", "make")
    bundle = set_temperature(static_bilstm(tmp_path / "bundle").folder)
    kit = write_kits(bundle, ["c"])[0]
    run("make", "-s", "-C", kit)
    lines = run(kit / "kdedge-classify", stdin=b"the film was lovely\n\nbad \xff").splitlines()
    assert len(lines) == 3
    assert_printed(lines[0], bundle.folder, "the film was lovely")


@pytest.mark.parametrize("task", STDIN)
def test_c_answers_each_line(tmp_path: Path, task: str) -> None:
    require("gcc", "make")
    bundle = set_temperature(static_bilstm(tmp_path / "bundle", task).folder)
    kit = write_kits(bundle, ["c"])[0]
    run("make", "-s", "-C", kit, f"CFLAGS=-O1 -Wall -Wextra -Werror {SANITIZERS}")
    assert_reads_lines(bundle, task, kit, "./kdedge-classify")


@pytest.mark.parametrize("task", ["single", "multilabel"])
def test_c_probabilities_are_calibrated(tmp_path: Path, task: str) -> None:
    require("gcc")
    bundle = set_temperature(static_bilstm(tmp_path / "bundle", task).folder)
    kit = write_kits(bundle, ["c"])[0]
    logits = c_logits(kit, "", ["the film was lovely"], bundle.manifest.spec.outputs)
    probability = ctypes.CDLL(str(kit / "model.so")).kdedge_probability
    probability.argtypes = [ctypes.c_void_p, ctypes.c_int]
    probability.restype = ctypes.c_double
    expected = Classifier.load(bundle.folder, "int8").predict_proba(["the film was lovely"])[0]
    actual = [probability(logits.ctypes.data, label) for label in range(len(expected))]
    assert actual == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_header_fits_the_c_file(bilstm: Bundle) -> None:
    require("gcc")
    kit = write_kits(bilstm, ["c"])[0]
    run("gcc", "-std=c11", "-fsyntax-only", "-Werror", "-include", kit / "kdedge_model.h",
        kit / "kdedge_model.c")  # fmt: skip
    run("g++", "-std=c++17", "-fsyntax-only", "-x", "c++", kit / "kdedge_model.h")


def test_a_kit_stands_next_to_the_bundle_and_replaces_only_kits(
    bilstm: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = factories.copy_bundle(bilstm.folder, tmp_path)
    monkeypatch.chdir(folder)
    for _ in range(2):
        (kit,) = write_kits(Bundle.open(Path(".")), ["c"])
        assert kit == folder.parent / "kits" / "c"
    for path in kit.iterdir():
        path.unlink()
    (kit / "mine.c").write_text("")
    with pytest.raises(UsageError, match="did not write"):
        write_kits(Bundle.open(Path(".")), ["c"])
    assert (kit / "mine.c").is_file()


@pytest.mark.parametrize("change", ["name", "labels"])
def test_a_kit_does_not_replace_that_of_another_bundle(tmp_path: Path, change: str) -> None:
    first = factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path / "first")
    other = other_bundle(first, change)
    (kit,) = write_kits(Bundle.open(first), ["node"])
    (kit / "left-over.mjs").write_text("")
    with pytest.raises(UsageError, match="of another bundle") as caught:
        write_kits(Bundle.open(other), ["node"])
    assert str(kit) in caught.value.detail and "folder of its own" in caught.value.hint
    assert (kit / "left-over.mjs").is_file()
    again = set_temperature(first)
    assert write_kits(again, ["node"]) == [kit]
    assert not (kit / "left-over.mjs").exists()
    shutil.rmtree(kit)
    assert write_kits(Bundle.open(other), ["node"]) == [kit]


def test_kits_of_an_earlier_export_are_named(tmp_path: Path) -> None:
    """They would classify with the old weights, and pass their own golden test."""
    folder = factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)
    (kit,) = write_kits(Bundle.open(folder), ["node"])
    (tmp_path / "kits" / "mine").mkdir()
    assert outdated_copies(folder, Bundle.open(folder).manifest) == {}
    changed = set_temperature(folder)
    assert outdated_copies(folder, changed.manifest) == {"--kit node": kit}
    done = CliRunner().invoke(cli, ["export", str(folder), "--kit", "node"])
    assert done.exit_code == 0 and "earlier export" not in done.output
    set_temperature(folder, 0.5)
    web = tmp_path / "web" / "bundle"
    web.mkdir(parents=True)
    (web / MANIFEST).write_text(json.dumps({"digest": "sha256:" + "0" * 64}))
    assert outdated_copies(folder, Bundle.open(folder).manifest) == {
        "--kit node": kit,
        "--web": web.parent,
    }


def test_c_is_for_bilstm_students_with_static_ranges(tmp_path: Path) -> None:
    for kind, says in (("bert", "dynamic ranges"), ("bilstm", "dynamic ranges")):
        bundle = Bundle.open(factories.copy_bundle(factories.tiny_bundle(kind), tmp_path / kind))
        with pytest.raises(UsageError, match=says):
            write_kits(bundle, ["c"])
    edit_manifest(bundle.folder, lambda document: document.update(scheme={}))
    with pytest.raises(UsageError, match="unknown ranges"):
        write_kits(Bundle.open(bundle.folder), ["c"])


def test_c_has_no_cross_attention(tmp_path: Path) -> None:
    task = factories.pair_task()
    made = factories.export_input("cross-attention", task)
    bundle = static_bundle(made, task, tmp_path / "bundle")
    with pytest.raises(UsageError, match="cross-attention"):
        write_kits(bundle, ["c"])


def test_a_vocabulary_beyond_the_embeddings_is_refused(tmp_path: Path) -> None:
    folder = static_bilstm(tmp_path / "bundle").folder
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    bundle = change_tokenizer(folder, model={"vocab": {**vocabulary, "beyond": 200}})
    with pytest.raises(IntegrityError, match="201 ids, 200 embeddings"):
        write_kits(bundle, ["c"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "bilstm"])
@pytest.mark.parametrize("task", ["single", "pair"])
def test_cpp_replays_golden_texts(
    tmp_path: Path, onnxruntime_kit: Path, kind: str, task: str
) -> None:
    require("g++", "make")
    bundle = bundle_of(kind, task, tmp_path)
    kit = write_kits(set_temperature(bundle), ["cpp"])[0]
    assert_golden(run("make", "-s", "-C", kit, f"ORT={onnxruntime_kit}", "test"))
    run("make", "-s", "-C", kit, f"ORT={onnxruntime_kit}")
    texts = ("the film was lovely", "it was bad")[: 2 if task == "pair" else 1]
    line = run("./kdedge-classify", folder=kit, stdin="\t".join(texts).encode())
    assert_printed(line, bundle, *texts)
    assert_reads_lines(Bundle.open(bundle), task, kit, "./kdedge-classify")


@pytest.mark.slow
def test_node_replays_golden_texts(tmp_path: Path) -> None:
    modules = None
    for kind in ("bert", "bilstm"):
        for task in ("single", "pair", "multilabel", "regression"):
            folder = tmp_path / f"{kind}-{task}"
            bundle = bundle_of(kind, task, folder)
            kit = write_kits(set_temperature(bundle), ["node"])[0]
            if modules is None:
                install_node_modules(kit)
                modules = (kit / "node_modules").rename(tmp_path / "node_modules")
            assert_golden(run("node", "golden.mjs", folder=kit))
            if task in STDIN:
                assert_reads_lines(Bundle.open(bundle), task, kit, "node", "main.mjs")


def test_versions_of_node_packages_are_exact(tmp_path: Path) -> None:
    bundle = factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)
    kit = write_kits(Bundle.open(bundle), ["node"])[0]
    wanted = json.loads((kit / "package.json").read_text())["dependencies"]
    lock = json.loads((kit / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    for name, package in lock.items():
        assert name == "" or package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_the_command_line_writes_kits_beside_a_bundle(tmp_path: Path) -> None:
    folder = static_bilstm(tmp_path / "student" / "bundle").folder
    arguments = ["export", str(folder), "--kit", "cpp", "--kit", "node", "--c", "--json"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout.splitlines()[-1])["bundles"][0]
    assert document["kits"] == [str(tmp_path / "student" / "kits" / name) for name in KITS]
    for kit in document["kits"]:
        assert (Path(kit) / "README.md").is_file()


def test_kits_are_written_for_the_students_that_they_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bert = factories.copy_bundle(factories.tiny_bundle("bert"), tmp_path / "bert")
    bilstm = static_bilstm(tmp_path / "bilstm" / "bundle").folder
    folders = write_all_kits([bert, bilstm], ["node", "c"])
    assert folders == [
        [str(tmp_path / "bert" / "kits" / "node")],
        [str(tmp_path / "bilstm" / "kits" / name) for name in ("node", "c")],
    ]
    assert (tmp_path / "bilstm" / "kits" / "c" / "kdedge_model.c").is_file()
    assert not (tmp_path / "bert" / "kits" / "c").exists()
    name = Bundle.open(bert).manifest.name
    assert f"no kit c for {name}: the C kit is for BiLSTM students" in capsys.readouterr().out


def test_a_kit_that_fits_no_student_is_an_error(tmp_path: Path) -> None:
    bert = factories.copy_bundle(factories.tiny_bundle("bert"), tmp_path / "bert")
    with pytest.raises(UsageError, match="C kit is for BiLSTM"):
        write_all_kits([bert], ["c", "node"])
    assert (tmp_path / "bert" / "kits" / "node" / "main.mjs").is_file()


def test_options_that_change_a_bundle_are_refused_with_a_kit(tmp_path: Path) -> None:
    bundle = factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)
    with pytest.raises(UsageError, match="as it is"):
        CliRunner().invoke(
            cli, ["export", str(bundle), "--kit", "cpp", "--portable"], catch_exceptions=False
        )
