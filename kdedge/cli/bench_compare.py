"""`kdedge bench compare A.json B.json`: one page from the reports of several machines."""

from __future__ import annotations

from pathlib import Path

import click

from kdedge.cli.console import print_line


@click.command("compare")
@click.argument(
    "reports",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="REPORT...",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("compare.html"),
    show_default=True,
    help="The page to write.",
)
def compare(reports: tuple[Path, ...], out: Path) -> None:
    """Merge the reports of several machines into one page.

    REPORT is the report.json of a bench. All of them must have measured the same texts. The page
    shows times, throughput and scores, and what differs between the machines.

    \b
    Example: kdedge bench compare lab/report.json board/report.json --out machines.html
    """
    from kdedge.benchmarks.compare_page import compare_reports

    compare_reports(reports, out)
    print_line(f"page: {out}")
