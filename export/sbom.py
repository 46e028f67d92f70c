"""Write the bill of materials (SBOM) of a bundle as CycloneDX 1.6 JSON.

It lists the files of the bundle with their hashes, the packages that run it, and the models and
data that it was made from, which are not part of it (scope `excluded`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.export.provenance import Origin, Provenance

from kdedge import __version__
from kdedge.io.licences import package_licence
from kdedge.io.optional import installed_versions, named_extra
from kdedge.runtime.layout import LAYOUT, SBOM
from kdedge.runtime.manifest import Manifest

if TYPE_CHECKING:
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import License

KDEDGE = "kdedge-toolkit"

RUNTIME_PACKAGES = ("click", "numpy", "onnxruntime", "onnxruntime-gpu", "rich", "tokenizers")
"""What kdedge needs to run a bundle; only one of the two ONNX Runtimes is installed."""


def require_sbom_library() -> None:
    """Raise MachineError with the pip line if the library for CycloneDX is not installed."""
    with named_extra("--sbom"):
        import cyclonedx.model.bom  # noqa: F401


def sbom_text(folder: Path, manifest: Manifest, provenance: Provenance) -> str:
    """Return the SBOM of a bundle whose other files are complete.

    Args:
        folder: The folder of the bundle.
        manifest: Its manifest, which is written after the SBOM and therefore not in it.
        provenance: What the student was made from.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType, Pedigree
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    model = ComponentType.MACHINE_LEARNING_MODEL
    bases = [_origin_component(base, model) for base in provenance.bases]
    teacher = _origin_component(provenance.teacher, model)
    teacher.pedigree = Pedigree(ancestors=_unreferenced(provenance.bases, model))
    data = [_origin_component(origin, ComponentType.DATA) for origin in provenance.data]
    kdedge = _package(KDEDGE, __version__)
    packages = [
        _package(name, version) for name, version in installed_versions(RUNTIME_PACKAGES).items()
    ]
    bundle = Component(
        name=manifest.name,
        type=model,
        bom_ref="bundle",
        description=f"{manifest.spec.kind} of texts, distilled by kdedge",
        components=_files(folder),
        pedigree=Pedigree(ancestors=_unreferenced([provenance.teacher], model)),
    )
    tool = Component(name=KDEDGE, type=ComponentType.APPLICATION, version=__version__)
    bom = Bom(
        metadata=BomMetaData(component=bundle, tools=ToolRepository(components=[tool])),
        components=[kdedge, *packages, teacher, *bases, *data],
    )
    bom.register_dependency(bundle, [kdedge])
    bom.register_dependency(kdedge, packages)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _files(folder: Path) -> Iterable[Component]:
    """Yield the files of a bundle; the SBOM cannot contain its own hash."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    for name in LAYOUT:
        path = folder / name
        if name == SBOM or not path.is_file():
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        yield Component(
            name=name,
            type=ComponentType.FILE,
            bom_ref=f"file:{name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )


def _package(name: str, version: str) -> Component:
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from packageurl import PackageURL

    return Component(
        name=name,
        type=ComponentType.LIBRARY,
        version=version,
        bom_ref=f"package:{name}",
        purl=PackageURL("pypi", None, name, version),
        scope=ComponentScope.REQUIRED,
        licenses=_licences(package_licence(name)),
    )


def _origin_component(origin: Origin, kind: ComponentType) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentScope

    hashes = []
    if origin.sha256 is not None:
        hashes.append(HashType(alg=HashAlgorithm.SHA_256, content=origin.sha256))
    return Component(
        name=origin.name,
        type=kind,
        version=origin.version,
        bom_ref=f"{kind.value}:{origin.name}",
        scope=ComponentScope.EXCLUDED,
        hashes=hashes,
        licenses=_licences(origin.licence),
    )


def _unreferenced(origins: Iterable[Origin], kind: ComponentType) -> list[Component]:
    """Return components for a pedigree, without references: each may be used only once."""
    components = []
    for origin in origins:
        component = _origin_component(origin, kind)
        component.bom_ref.value = None
        components.append(component)
    return components


def _licences(licence: str | None) -> list[License]:
    """Return a licence as an SPDX identifier or expression if it is one, else by name."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [] if licence is None else [LicenseFactory().make_from_string(licence)]
