"""No file name, label or error writes a control character to the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import factories
import pytest
from kdedge_process import call_kdedge

from kdedge.errors import IntegrityError, KdedgeError
from kdedge.runtime import Bundle
from kdedge.runtime.layout import MANIFEST
from kdedge.runtime.manifest import Manifest, write_manifest

HOSTILE = ["\x1b[2J", "\x9b1m", "\u202e"]
"""ESC, its single-character form, and the mark that reverses text."""


def assert_harmless(output: str) -> None:
    assert not set(output) & {"\x1b", "\x9b", "\u202e"}, repr(output[:400])


@pytest.mark.parametrize("mark", HOSTILE)
def test_errors_escape_control_characters(mark: str) -> None:
    error = KdedgeError(f"a{mark}", f"b{mark}\nsecond line", f"c{mark}")
    assert_harmless(str(error))
    assert len(str(error).splitlines()) == 4


@pytest.mark.parametrize("mark", HOSTILE)
@pytest.mark.parametrize("command", ["info", "verify", "predict", "export", "bench"])
def test_file_names_are_escaped(mark: str, command: str, tmp_path: Path) -> None:
    done = call_kdedge(command, str(tmp_path / f"no{mark}folder"), "--nonsense")
    assert done.returncode == 2
    assert_harmless(done.stdout + done.stderr)
    done = call_kdedge(command, str(tmp_path / f"no{mark}folder"))
    assert done.returncode != 0
    assert_harmless(done.stdout + done.stderr)


def test_labels_and_names_of_a_bundle_are_escaped(tmp_path: Path) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)
    document = json.loads((folder / MANIFEST).read_text())
    document["spec"]["labels"] = [f"bad{HOSTILE[0]}", f"good{HOSTILE[1]}{HOSTILE[2]}"]
    document["name"] = "name" + "".join(HOSTILE)
    write_manifest(folder, Manifest.from_json(document))
    for command in (["info"], ["verify"], ["info", "--json"]):
        done = call_kdedge(command[0], str(folder), *command[1:])
        assert_harmless(done.stdout + done.stderr)
    assert_harmless(repr(Bundle.open(folder)))
    with pytest.raises(IntegrityError) as error:
        Bundle.open(folder).verify_labels()
    assert_harmless(str(error.value))


def test_an_unlisted_file_is_named_without_control_characters(tmp_path: Path) -> None:
    folder = factories.copy_bundle(factories.tiny_bundle("bilstm"), tmp_path)
    (folder / "".join(HOSTILE)).write_text("x")
    with pytest.raises(IntegrityError) as error:
        Bundle.open(folder)
    assert_harmless(str(error.value))
