"""How numbers become integers: one value that fake-quant, the graph writer and the manifest read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from kdedge.errors import UsageError

STEPS = 255
"""Steps of a uint8 activation between its lowest and highest value."""


@dataclass(frozen=True)
class QuantScheme:
    """How numbers become integers; read by fake-quant, by the graph writers and written into the manifest.

    activations: `static` uint8, one range per tensor, fixed before export; `dynamic` uint8, one range per tensor of a
    batch, found while running; `float`: not rounded, weights alone are stored small, in 8 bits or, by blocks, in 4.
    weights: symmetric int8, one scale per output channel, or (dynamic alone) per tensor.
    weight_bits: 7 keeps the product with a uint8 activation inside the 16-bit sums of CPUs without VNNI, so the
    answers are the same there; 8 uses the whole range.
    Embedding tables: static: symmetric int8, one scale per row, or uint8 and one scale per table where an LSTM reads it;
    dynamic: uint8, one scale per table.
    attention: whether the two products of attention, queries with keys and shares with values, are of `integers` too, or stay in
    `float`; integers need static activations. Keys and values take the place of a weight: symmetric int8 of weight_bits, one scale per tensor.
    """

    weights: Literal["per_channel", "per_tensor"] = "per_channel"
    weight_bits: Literal[4, 7, 8] = 7
    activations: Literal["dynamic", "static", "float"] = "dynamic"
    attention: Literal["float", "integers"] = "float"

    def __post_init__(self) -> None:
        bits = {"dynamic": (7, 8), "static": (7, 8), "float": (4, 8)}.get(self.activations, ())
        known = self.weights in ("per_channel", "per_tensor") and self.weight_bits in bits
        if not known or (self.weights == "per_tensor" and self.activations != "dynamic"):
            found = f"{self}, weights {self.weights}"
            raise UsageError(
                "no such quantization scheme",
                found,
                "--scheme static or dynamic take --weight-bits 7 or 8, --scheme weight_only takes 8 or 4",
            )
        if self.attention == "integers" and self.activations != "static":
            raise UsageError(
                "attention in integers needs fixed ranges",
                f"{self}, attention {self.attention}",
                "use --scheme static, or --attention float",
            )

    def __str__(self) -> str:
        """As the command line names it."""
        return f"--scheme {'weight_only' if self.activations == 'float' else self.activations} --weight-bits {self.weight_bits}"

    @classmethod
    def named(cls, name: str, weight_bits: int | None = None) -> QuantScheme:
        """`static`, `dynamic` (7 bits, if not told) or `weight_only` (8), as the command line names them.

        Raises UsageError for another name, or bits it does not have.
        """
        activations = "float" if name == "weight_only" else name
        return cls(
            weight_bits=weight_bits or (8 if activations == "float" else 7), activations=activations
        )  # type: ignore[arg-type]

    @property
    def largest_weight(self) -> int:
        """The integer that the largest weight of a channel becomes; 63 keeps 2 · 255 · 63 below 2^15."""
        return 2 ** (self.weight_bits - 1) - 1

    @property
    def static(self) -> bool:
        return self.activations == "static"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
