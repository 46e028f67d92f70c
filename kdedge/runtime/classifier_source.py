"""Where a classifier comes from: what another process needs to open it again."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.runtime.bundle import Bundle


@dataclass(frozen=True)
class ClassifierSource:
    """Where a classifier comes from: what is needed to open it in another process.

    Attributes:
        folder: The bundle's folder or zip, as an absolute path, or its hub id.
        digest: The digest of its manifest.
        fallback: Whether nodes may run on the CPU.
    """

    folder: str
    digest: str
    fallback: bool

    @classmethod
    def of(cls, bundle: Bundle, fallback: bool) -> ClassifierSource:
        """Return the source of an open bundle."""
        folder = bundle.folder
        if folder.exists():  # A hub id does not, and stays as it is.
            folder = folder.absolute()
        return cls(str(folder), bundle.manifest.digest(), fallback)
