"""A chart specification as files: SVG and PNG with the same bytes for the same specification."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import vl_convert

from dipscope.workspace import write_atomic

VEGA_LITE = "6.4"
PIXELS = 2.0  # PNG pixels per CSS pixel


def save(spec: dict[str, Any], folder: Path, name: str) -> None:
    """Write `folder/NAME.svg` and `folder/NAME.png`.

    Raises:
        DipscopeError: the folder cannot be written.
    """
    svg = renumbered(vl_convert.vegalite_to_svg(json.dumps(spec, sort_keys=True), vl_version=VEGA_LITE))
    write_atomic(folder / f"{name}.svg", svg)
    write_atomic(folder / f"{name}.png", vl_convert.svg_to_png(svg, scale=PIXELS))


def renumbered(svg: str) -> str:
    """The drawing with clip paths numbered from 0; Vega counts them through the life of a process."""
    found: dict[str, str] = {}
    return re.sub(
        r'(?<=id=")clip\d+(?=")|(?<=url\(#)clip\d+(?=\))',
        lambda m: found.setdefault(m[0], f"clip{len(found)}"),
        svg,
    )
