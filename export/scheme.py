"""How numbers become integers: one value for fake-quant, the graph writers and the manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from kdedge.errors import UsageError

UINT8_MAX = 255
"""The largest uint8; the range of an activation has as many steps."""

Activations = Literal["dynamic", "static"]


@dataclass(frozen=True)
class QuantScheme:
    """How the int8 file stores weights and rounds activations.

    Attributes:
        weights: Symmetric int8 with one scale per output channel.
        weight_bits: 7 bits keep the sum of two products with uint8 activations within 16 bits:
            CPUs without VNNI then compute the same result. 8 bits use all of int8.
        activations: uint8 with one range per tensor. `static` ranges are fixed before export;
            `dynamic` ranges are those of the current batch.

    The two products of attention (queries with keys, probabilities with values) stay in float.
    Embedding tables depend on `activations`. Static: symmetric int8 with one scale per row, or
    uint8 with one scale per table if an LSTM reads it. Dynamic: uint8 with one scale per table.
    """

    weights: Literal["per_channel"] = "per_channel"
    weight_bits: Literal[7, 8] = 7
    activations: Activations = "dynamic"

    def __post_init__(self) -> None:
        known = (
            self.weights == "per_channel"
            and self.weight_bits in (7, 8)
            and self.activations in ("dynamic", "static")
        )
        if not known:
            raise UsageError(
                "there is no such quantization scheme",
                repr(self),
                "use --scheme static or dynamic, and --weight-bits 7 or 8",
            )

    def __str__(self) -> str:
        """Return the options of the command line."""
        return f"--scheme {self.activations} --weight-bits {self.weight_bits}"

    @classmethod
    def named(cls, name: str, weight_bits: int | None = None) -> QuantScheme:
        """Return the scheme that the command line calls `static` or `dynamic`.

        Raises:
            UsageError: If there is no such name or number of bits.
        """
        bits = cast(Literal[7, 8], weight_bits or 7)
        return cls(weight_bits=bits, activations=cast(Activations, name))

    @property
    def largest_weight(self) -> int:
        """The integer of the largest weight of a channel: 63 keeps 2 · 255 · 63 below 2^15."""
        return 127 if self.weight_bits == 8 else 63

    @property
    def static(self) -> bool:
        return self.activations == "static"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
