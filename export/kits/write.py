"""Lays out kits: folders of source code that classify with a bundle without Python."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kdedge.export.cleaning import require_no_cleaning
from kdedge.export.kits.lstm_data import LstmStudent
from kdedge.export.kits.model_data import golden_source, task_source
from kdedge.export.kits.tokenizer_data import (
    tokenizer_document,
    unicode_source,
    vocabulary_source,
)
from kdedge.export.kits.unicode_tables import TABLES_FILE
from kdedge.export.kits.wordpiece import WordPiece
from kdedge.export.target import RECORD, check_target

from kdedge.errors import MachineError, UsageError
from kdedge.io.atomic import json_text, remove, removed_on_error, replace_dir
from kdedge.runtime.bundle import Bundle
from kdedge.runtime.digest import DIGEST
from kdedge.runtime.layout import PRECISIONS

SOURCES = Path(__file__).parent

KitWriter = Callable[[Bundle, WordPiece, Path], None]
"""Writes the files of one kit into an empty folder."""


def write_kits(bundle: Bundle, names: Sequence[str]) -> list[Path]:
    """Write kits into the folder `kits` next to a bundle; older ones of it are replaced.

    Args:
        bundle: A bundle in a folder.
        names: One or more of `KITS`.

    Returns:
        The folders of the kits.

    Raises:
        UsageError: If a kit does not support this bundle, or would replace the kit of another
            bundle or a folder that kdedge did not write.
        MachineError: If a kit cannot be written.
    """
    bundle.verify_files()
    require_no_cleaning(bundle.manifest, "a kit")
    tokenizer = WordPiece.of(bundle)
    folders = []
    for name in dict.fromkeys(names):
        folder = Path(os.path.abspath(bundle.folder)).parent / "kits" / name
        check_target("kit", folder, RECORD, bundle.manifest)
        try:
            _write(KITS[name], bundle, tokenizer, folder)
        except OSError as error:
            raise MachineError(
                "a kit cannot be written",
                f"{folder}: {error.strerror}",
                "free space or choose another folder",
            ) from error
        folders.append(folder)
    return folders


def _write(write: KitWriter, bundle: Bundle, tokenizer: WordPiece, folder: Path) -> None:
    part = folder.with_name(folder.name + ".part")
    remove(part)
    with removed_on_error(part):
        part.mkdir(parents=True)
        write(bundle, tokenizer, part)
        manifest = bundle.manifest
        record = {"name": manifest.name, "spec": manifest.spec.to_json()}
        record[DIGEST] = manifest.digest()
        (part / RECORD).write_text(json_text(record), encoding="utf-8")
        replace_dir(part, folder)


def write_c(bundle: Bundle, tokenizer: WordPiece, folder: Path) -> None:
    """Write one C file with the weights in it, and what tests it."""
    student = LstmStudent.of(bundle)
    student.require_rows(tokenizer.highest_id + 1)
    parts = [
        _C_HEADER,
        "#include <math.h>\n#include <stdio.h>\n",
        unicode_source(),
        vocabulary_source(tokenizer),
        task_source(bundle.manifest),
        student.source(),
        _source("shared/wordpiece.h"),
        _source("shared/multiply.h"),
        _source("shared/lstm.h"),
        _source("shared/answer.h"),
        _source("c/predict.h"),
    ]
    _copy(folder, "c/kdedge_model.h", "c/golden_test.c", "c/Makefile", "c/README.md")
    _copy(folder, "shared/golden.h")
    (folder / "kdedge_model.c").write_text("\n".join(parts), encoding="utf-8")
    (folder / "golden_data.h").write_text(golden_source(bundle, "int8"), encoding="utf-8")


_C_HEADER = """\
/* A text classifier in one file: tokenizer, weights and arithmetic. Written by kdedge.

   gcc -O3 -march=native -std=c11 -DKDEDGE_MAIN kdedge_model.c -o kdedge-classify -lm
   echo "a text" | ./kdedge-classify

   Without -DKDEDGE_MAIN the file offers the functions of kdedge_model.h. AVX2 or NEON is used if
   the compiler is allowed to. The functions stand at the end, after the weights. */
"""


def write_cpp(bundle: Bundle, tokenizer: WordPiece, folder: Path) -> None:
    """Write C++ sources, the model and the vocabulary."""
    precision = _precision(bundle)
    inputs = ", ".join(f'"{name}"' for name in bundle.manifest.inputs)
    task = task_source(bundle.manifest) + f"\n#define KD_INPUTS {inputs}\n"
    generated = {
        "unicode_tables.h": unicode_source(),
        "vocabulary.h": vocabulary_source(tokenizer),
        "task.h": task,
        "golden_data.h": golden_source(bundle, precision),
    }
    for name, text in generated.items():
        (folder / name).write_text(text, encoding="utf-8")
    _copy(folder, *_files("cpp"))
    _copy(folder, "shared/wordpiece.h", "shared/answer.h", "shared/golden.h")
    (folder / "model.onnx").write_bytes(bundle.contents[PRECISIONS[precision]])


def write_node(bundle: Bundle, tokenizer: WordPiece, folder: Path) -> None:
    """Write JavaScript modules, the model, the vocabulary and the golden texts."""
    precision = _precision(bundle)
    spec = bundle.manifest.spec
    settings = {
        "inputs": list(bundle.manifest.inputs),
        "precision": precision,
        "task": spec.to_json(),
        "temperature": bundle.manifest.temperature,
        "tokenizer": tokenizer_document(tokenizer),
    }
    (folder / "settings.json").write_text(json_text(settings), encoding="utf-8")
    _copy(folder, *_files("node"))
    shutil.copyfile(TABLES_FILE, folder / TABLES_FILE.name)
    (folder / "golden.json").write_bytes(bundle.contents["golden.json"])
    (folder / "model.onnx").write_bytes(bundle.contents[PRECISIONS[precision]])


KITS: Mapping[str, KitWriter] = {"cpp": write_cpp, "node": write_node, "c": write_c}
"""Name of a kit -> function that writes it."""


def _precision(bundle: Bundle) -> str:
    """Return the precision of the ONNX file that a kit runs: int8, or else fp32."""
    for name in ("int8", "fp32"):
        if name in bundle.manifest.precisions:
            return name
    raise UsageError(
        "this bundle has no file for a kit",
        f"only {', '.join(bundle.manifest.precisions)}",
        "export it with --precision int8",
    )


def _source(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def _files(kit: str) -> list[str]:
    return sorted(f"{kit}/{path.name}" for path in (SOURCES / kit).iterdir())


def _copy(folder: Path, *names: str) -> None:
    for name in names:
        source = SOURCES / name
        shutil.copyfile(source, folder / source.name)
