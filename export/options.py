"""What a user can choose for an export."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.export.scheme import QuantScheme

from kdedge.errors import UsageError

AUTO = "auto"
"""The int8 file, or the fp32 file if int8 is not worth packing."""

FILES = (AUTO, "fp32", "int8", "fp16", "portable")

GOLDEN_SOURCES = ("neutral", "test")

INT8 = QuantScheme(activations="static")
"""The scheme of a student's int8 file unless the user chooses another."""


@dataclass(frozen=True)
class ExportOptions:
    """What a student's bundle contains.

    Attributes:
        precisions: Files to pack: `fp32`, `int8`, `fp16`, `portable`, or `auto`: int8, or fp32 if
            int8 loses too much. The fp32 graph is checked in any case. A student for which fp16
            makes no sense, such as a BiLSTM, gets the other files.
        scheme: How the int8 file rounds.
        tune: Whether quantization-aware training may follow calibration.
        trim_vocab: Pieces of the vocabulary to keep; None: as the recipe says.
        golden_from: Texts of golden.json: `neutral`, which come with kdedge, or `test`: 16 texts
            of the test split, word for word.
        sbom: Whether to write a bill of materials into the bundle.
        with_eval: Whether to pack the test split, for `kdedge bench` on a device.

    Raises:
        UsageError: If one option would be ignored because of another.
    """

    precisions: tuple[str, ...] = (AUTO,)
    scheme: QuantScheme = INT8
    tune: bool = True
    trim_vocab: int | None = None
    golden_from: str = "neutral"
    sbom: bool = False
    with_eval: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.precisions) - set(FILES)
        if unknown or not self.precisions:
            raise UsageError(
                "there is no such file of a bundle",
                ", ".join(sorted(unknown)),
                f"use one or more of {', '.join(FILES)}",
            )
        if self.golden_from not in GOLDEN_SOURCES:
            raise UsageError(
                "golden texts come from one of two places",
                f"golden_from = {self.golden_from!r}",
                f"use {' or '.join(GOLDEN_SOURCES)}",
            )
        files = f"--precision {self.precisions[0]}"
        scheme = str(self.scheme)
        no_int8 = not self.int8
        portable = "portable" in self.precisions
        if no_int8 and not self.tune:
            raise _conflict("--no-qat", files, NO_INT8)
        if no_int8 and portable:
            raise _conflict("--portable", files, PORTABLE_NEEDS)
        if no_int8 and self.scheme != INT8:
            raise _conflict(scheme, files, NO_INT8)
        if portable and self.scheme != INT8:
            raise _conflict("--portable", scheme, PORTABLE_NEEDS)
        if not self.scheme.static and not self.tune:
            raise _conflict("--no-qat", scheme, TUNING_NEEDS)

    @property
    def int8(self) -> bool:
        """Whether an int8 file is written."""
        return AUTO in self.precisions or "int8" in self.precisions

    @property
    def static_int8(self) -> bool:
        """Whether an int8 file with fixed ranges is written."""
        return self.scheme.static and self.int8


def _conflict(option: str, other: str, reason: str) -> UsageError:
    """Return the error for an option that another one makes useless."""
    return UsageError(reason, f"{option} with {other}", f"leave {option} out")


NO_INT8 = "this option needs an int8 file"
PORTABLE_NEEDS = "a portable file needs an int8 file with fixed ranges and 7-bit weights"
TUNING_NEEDS = "only an int8 file with fixed ranges is tuned"

DEFAULT_OPTIONS = ExportOptions()

TEACHER_OPTIONS = ExportOptions(("fp32", "int8"), scheme=QuantScheme())
"""The teacher's bundle is always the same, because students are measured against it.

Dynamic: fake-quant covers students only.
"""
