"""Write the pages of docs/reference/ that come from the code: recipe keys and commands."""

from __future__ import annotations

from cli_reference import cli_reference
from links import DOCS, GENERATED
from recipe_reference import recipe_reference


def main() -> None:
    """Write the pages."""
    for page, write in zip(GENERATED, (recipe_reference, cli_reference), strict=True):
        (DOCS / page).write_text(write(), encoding="utf-8")


if __name__ == "__main__":
    main()
