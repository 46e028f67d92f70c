"""Errors of a full or read-only disk name the folder; other errors stay as they are."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kdedge.errors import MachineError
from kdedge.io.disk import named_disk_errors


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_names_the_folder_whatever_library_finds_it(
    error: Exception, tmp_path: Path
) -> None:
    with pytest.raises(MachineError) as caught, named_disk_errors(tmp_path / "bundle"):
        raise error
    assert caught.value.message == "the disk is full"
    assert str(tmp_path / "bundle") in caught.value.detail


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(LookupError), named_disk_errors(tmp_path / "bundle"):
        raise LookupError("no such thing")
