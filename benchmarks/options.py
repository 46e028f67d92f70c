"""How a bench measures."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.errors import UsageError


@dataclass(frozen=True)
class Options:
    """How a bench measures.

    Attributes:
        providers: Execution providers of ONNX Runtime. A provider that is missing is an error.
            `all` tries every provider that ONNX Runtime offers, with every file.
        threads: Threads of every subject.
        seconds: Time for all timing together.
        repeats: Number of single texts to time for each subject, instead of `seconds`.
        batch: Texts per batch, for throughput.
        teacher: Whether the teacher runs.
        target: The retention that a student must reach.
        seed: Seeds the choice of texts and the bootstrap.
        show_texts: Whether the report shows the texts on which student and teacher differ most.
        scenarios: See `scenarios.names.SCENARIOS`.
        rates: Texts per second of the scenario `load`; () chooses shares of each capacity.
    """

    providers: tuple[str, ...] = ("cpu",)
    threads: int = 1
    seconds: float = 15.0
    repeats: int | None = None
    batch: int = 32
    teacher: bool = True
    target: float = 0.99
    seed: int = 0
    show_texts: bool = False
    scenarios: tuple[str, ...] = ("single",)
    rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raise UsageError for rates without their scenario."""
        if self.rates and "load" not in self.scenarios:
            raise UsageError(
                "rates belong to the scenario load",
                f"scenarios: {', '.join(self.scenarios)}",
                "add the scenario load, or leave the rates out",
            )

    def words(self) -> list[str]:
        """Return the options of `kdedge bench` that differ from the defaults."""
        words: list[str] = []
        if self.providers != DEFAULTS.providers:
            for name in self.providers:
                words += ["--provider", name]
        for name in ("threads", "seconds", "repeats", "batch", "target"):
            value = getattr(self, name)
            if value != getattr(DEFAULTS, name):
                words += [f"--{name}", str(value)]
        if not self.teacher:
            words.append("--no-teacher")
        if self.show_texts:
            words.append("--show-texts")
        if self.scenarios != DEFAULTS.scenarios:
            words += ["--scenario", ",".join(self.scenarios)]
        for rate in self.rates:
            words += ["--rate", f"{rate:g}"]
        return words


DEFAULTS = Options()
