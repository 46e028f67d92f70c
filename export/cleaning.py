"""Refuses forms of a bundle that do not clean texts as kdedge does."""

from __future__ import annotations

from kdedge.errors import UsageError
from kdedge.runtime.manifest import Manifest


def require_no_cleaning(manifest: Manifest, form: str) -> None:
    """Raise UsageError if the bundle cleans texts, which `form` cannot.

    Args:
        manifest: The manifest of the bundle.
        form: What would be written, such as "a web page".
    """
    if manifest.clean:
        raise UsageError(
            f"{form} cannot clean texts, and this bundle cleans them: its answers would differ",
            f"the bundle's steps are {', '.join(manifest.clean)}",
            "train without data.clean.labelled, or use the bundle with kdedge in Python",
        )
