"""The machine of a study in one line."""

from __future__ import annotations

from kdedge.benchmarks import machine


def machine_line() -> str:
    """Describe this machine and its packages, for the head of a table."""
    described = machine.describe(threads=1)
    flags = ", ".join(described["flags"] or [])
    packages = [f"{name} {number}" for name, number in described["packages"].items()]
    conditions = " ".join(machine.notes(described))
    listed = ", ".join(packages)
    return f"Machine: {described['cpu']}, {flags}; {listed}; 1 thread. {conditions}\n"
