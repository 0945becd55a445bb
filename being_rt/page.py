"""Pages of a report: HTML files that need nothing else, with tables, curves, pictures and videos."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Series = Sequence[tuple[float, float]]

EMBEDDED_VIDEO = 24 << 20  # bytes; a longer video is linked
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 260, 56, 34, 12  # px of a chart
_COLOURS = ("#2563a8", "#c2571a", "#2d8a4e", "#8a3fa0", "#a08a1a", "#666666", "#b0305a", "#1a8f9e")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #1c1c1c; }
table { border-collapse: collapse; margin: .5em 0 1.5em; } td, th { padding: .2em .9em .2em 0; text-align: left; }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums; } th { border-bottom: 1px solid #bbb; }
figure { margin: 0 0 1.2em; } figcaption { color: #555; } img, video { max-width: 100%; } pre { overflow-x: auto; }
svg text { font: 11px system-ui, sans-serif; fill: #444; } h2 { margin-top: 1.6em; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page: a title, and parts that are HTML already; empty ones are left out.

    Example::

        text = page("Ada", [table([], [["frames", "750"]]), figure("how it went", chart({"loss": points}))])
    """
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
    body = "\n".join(part for part in parts if part)
    return f"{head}\n<style>{_STYLE}</style></head><body>\n<h1>{text(title)}</h1>\n{body}\n</body></html>\n"


def chart(series: Mapping[str, Series], logarithmic: bool = False) -> str:
    """Curves as SVG: a colour each, with axes, ticks and a legend. Points (x, y); y positive where logarithmic."""
    points = [(x, math.log10(y) if logarithmic else y) for values in series.values() for x, y in values]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)
    if high_y - low_y < 1e-9:
        low_y, high_y = low_y - 0.5, high_y + 0.5
    span_x = max(high_x - low_x, 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        height = math.log10(y) if logarithmic else y
        across = _LEFT + (x - low_x) / span_x * (_WIDTH - _LEFT - 10)
        return across, _TOP + (high_y - height) / (high_y - low_y) * (_HEIGHT - _BOTTOM - _TOP)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 18}" width="{_WIDTH}" role="img">']
    for tick in _ticks(low_y, high_y):
        _, y = place(low_x, 10**tick if logarithmic else tick)
        label = f"{10**tick:.2g}" if logarithmic else f"{tick:g}"
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick in _ticks(low_x, high_x):
        x = _LEFT + (tick - low_x) / span_x * (_WIDTH - _LEFT - 10)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    place_legend = _LEFT
    for (name, values), colour in zip(series.items(), _COLOURS * len(series), strict=False):
        if not values:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*value) for value in values))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<rect x="{place_legend}" y="{_HEIGHT + 2}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{place_legend + 14}" y="{_HEIGHT + 11}">{text(name)}</text>')
        place_legend += 26 + 7 * len(name)
    return "".join(parts) + "</svg>"


def _ticks(low: float, high: float) -> list[float]:
    """Some four round numbers between two."""
    if high - low < 1e-9:
        return [low]
    rough = (high - low) / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text under a head, which may be empty; nothing where there are no rows."""
    if not rows:
        return ""
    top = f"<tr>{''.join(f'<th>{text(cell)}</th>' for cell in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def figure(caption: str, content: str) -> str:
    """HTML with a caption."""
    return f"<figure>{content}<figcaption>{text(caption)}</figcaption></figure>"


def picture_address(picture: UInt8) -> str:
    """A picture uint8 [H, W, 3] as the address that an ``img`` takes: the picture itself, as a JPEG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def video_address(path: str | os.PathLike[str], folder: Path) -> str:
    """A video as the address that a ``video`` of a page in ``folder`` takes: itself, or a link where it is large."""
    path = Path(path)
    data = path.read_bytes() if path.stat().st_size <= EMBEDDED_VIDEO else b""
    return f"data:video/mp4;base64,{base64.b64encode(data).decode()}" if data else os.path.relpath(path, folder)


def number(value: float) -> str:
    """A few digits; a dash for what is not known."""
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}" if math.isfinite(value) else "–"


def text(value: str) -> str:
    """Text as HTML."""
    return html.escape(value)
