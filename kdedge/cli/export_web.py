"""The options of `kdedge export` that write a web page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kdedge.cli.console import print_line
from kdedge.cli.options import option_group


@dataclass(frozen=True)
class WebOptions:
    """Whether to write web pages, and from which node_modules."""

    web: bool = False
    web_libraries: Path | None = None

    @property
    def wanted(self) -> bool:
        return self.web or self.web_libraries is not None


web_options = option_group(
    "web",
    WebOptions,
    click.option(
        "--web",
        is_flag=True,
        help="Also write a static web page that classifies texts in the browser, into the folder "
        "web next to the bundle. RUN may be a bundle.",
    ),
    click.option(
        "--web-libraries",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        metavar="FOLDER",
        help="A folder node_modules with the page's libraries. Default: npm installs them once.",
    ),
)


def write_web_pages(bundles: Sequence[Path], options: WebOptions) -> list[dict[str, Any]]:
    """Write the page of each bundle, print where it is, and return these facts for `--json`."""
    from kdedge.export.web_page import MAX_BYTES, write_web_page

    documents = []
    for bundle in bundles:
        page = write_web_page(bundle, options.web_libraries)
        limit = f"{MAX_BYTES / 1e6:.1f} MB are allowed"
        print_line(f"web page: {page.folder}, {page.bytes / 1e6:.1f} MB ({limit})")
        if page.has_test_texts:
            print_line("its golden.json holds texts of the test split: everyone can read them")
        documents.append({"web": str(page.folder), "web_bytes": page.bytes})
    folder = documents[0]["web"]
    print_line(f"serve it with any static host, or: python -m http.server --directory {folder}")
    return documents
