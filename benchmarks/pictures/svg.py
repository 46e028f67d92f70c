"""Charts as SVG elements without colours of their own: the page's stylesheet sets them."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from kdedge.benchmarks.pictures.style import GRID, MUTED, Layer

SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"

NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document can hold, such as most control characters."""

ALLOWED_TAGS = {"svg", "g", "path", "line", "rect", "text", "tspan", "circle"}
"""Elements that a picture may have."""


def to_svg(chart: Layer, name: str, title: str) -> str:
    """Render a chart as an SVG element with a title, without ids or links to elsewhere."""
    import vl_convert

    styled = chart.configure(
        background="transparent",
        font="system-ui, sans-serif",
        padding={"left": 2, "top": 8, "right": 10, "bottom": 2},
        aria=False,
        axis={
            "labelColor": MUTED,
            "titleColor": MUTED,
            "titleFontWeight": "normal",
            "titleFontSize": 12,
            "titlePadding": 10,
            "labelFontSize": 11,
            "gridColor": GRID,
            "domainColor": GRID,
            "tickColor": GRID,
        },
        view={"stroke": None},
    )
    document = _without_control_characters(styled.to_dict())
    return clean_svg(str(vl_convert.vegalite_to_svg(document)), name, title)


def _without_control_characters(value: Any) -> Any:
    """Write characters that XML cannot hold as escapes, in all texts of a chart.

    The converter ends the whole process if it meets one, in the name of a label for example.
    """
    if isinstance(value, dict):
        return {_xml_text(key): _without_control_characters(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_control_characters(item) for item in value]
    return _xml_text(value) if isinstance(value, str) else value


def _xml_text(text: str) -> str:
    return NOT_IN_XML.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def clean_svg(svg: str, name: str, title: str) -> str:
    """Return an SVG as an element of an HTML page.

    Every element and attribute that can refer to something or run code is refused or removed.

    Args:
        svg: The document of an SVG file.
        name: An id that no other element of the page has.
        title: What a screen reader says.
    """
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = str(element.tag).removeprefix(SVG_NAMESPACE)
        if element.tag not in ALLOWED_TAGS:
            raise ValueError(f"a picture has an element <{element.tag}>")
        for attribute in list(element.attrib):
            if _is_unsafe(attribute, element.attrib[attribute]):
                del element.attrib[attribute]
    root.set("role", "img")
    root.set("aria-labelledby", name)
    caption = ElementTree.Element("title", {"id": name})
    caption.text = title
    root.insert(0, caption)
    return ElementTree.tostring(root, encoding="unicode")


def _is_unsafe(attribute: str, value: str) -> bool:
    return (
        attribute.startswith(("on", "{"))
        or attribute in ("id", "href", "class", "style", "clip-path")
        or re.search(r"url\(|javascript:", value) is not None
    )
