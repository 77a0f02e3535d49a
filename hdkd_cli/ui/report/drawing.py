"""How figures look: one palette for light and dark, SVG that takes its colours from the page.

A figure is drawn once, in the light colours. On a page every colour of the palette is replaced by a
CSS variable, so that the page's theme decides. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdkd_cli.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure as Canvas

# Name of a CSS variable → (light, dark). Series colours stay apart in all common forms of colour
# blindness (after Okabe & Ito, 2008), and differ in line style too.
PALETTE = {
    "ink": ("#1b2127", "#e4e8ec"),
    "muted": ("#5c6670", "#9ba6b1"),
    "line": ("#d8dde2", "#3a434c"),
    "paper": ("#ffffff", "#15191d"),
    "s1": ("#0067a9", "#5fb3f2"),
    "s2": ("#c4470f", "#ff8f5e"),
    "s3": ("#007a57", "#45cf9f"),
    "s4": ("#94468f", "#dd9bdb"),
    "s5": ("#8a6100", "#e6b440"),
    "s6": ("#3f4a9e", "#a3adff"),
}
INK, MUTED, LINE, PAPER = (PALETTE[name][0] for name in ("ink", "muted", "line", "paper"))
SERIES = tuple(light for name, (light, _) in PALETTE.items() if name.startswith("s"))
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

STYLE: Any = {
    "font.family": "sans-serif",
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.labelsize": "medium",
    "svg.fonttype": "none",
    "svg.hashsalt": "hdkd",  # the same picture every time
    "text.parse_math": False,  # a dollar in a run's name is a dollar
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 9.5),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 9),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), PAPER),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.labelcolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"), INK),
}
STEPS = "optimiser steps"
WIDTH_INCHES = 4.8  # narrow enough for a telephone, and two of them side by side for a desk
COLUMNS = 3  # small multiples side by side
PNG_DPI = 200


class Line(NamedTuple):
    """A series of points (x, y), how matplotlib draws it, and whether a legend lists it."""

    name: str
    points: Any
    style: Mapping[str, Any]
    listed: bool = True


@dataclass(frozen=True)
class Figure:
    """A picture and the numbers it shows."""

    name: str  # stem of its file names
    section: Literal["accuracy", "leaving", "training"]  # of a report
    title: str
    caption: str  # how to read it
    alt: str  # what it shows, in words
    columns: tuple[str, ...]  # of the numbers, with units
    rows: Iterable[Sequence[Any]]
    draw: Callable[[Canvas], object]  # on an empty canvas
    height: float = 3.3  # inches


class Drawing(NamedTuple):
    """A figure as it is drawn: two files. Text in the SVG stays text."""

    figure: Figure
    svg: str
    png: bytes


def require_matplotlib() -> None:
    """Make sure that something can be drawn.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            "a report needs matplotlib and jinja2",
            hint="pip install 'hdkd[plots]', or give --plain for curves and tables as text",
        ) from None


def exit_colours(num_exits: int) -> tuple[tuple[str, str], ...]:
    """(light, dark) of each exit, from early to late: even steps in lightness."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    def of(low: float, high: float) -> list[str]:
        return [to_hex(colormaps["viridis"](x)) for x in np.linspace(low, high, num_exits)]

    return tuple(zip(of(0.86, 0.02), of(0.98, 0.3), strict=True))


def exit_styles(num_exits: int) -> list[dict[str, Any]]:
    """How the line of each exit is drawn."""
    return [
        {"color": light, "linestyle": DASHES[k % len(DASHES)]}
        for k, (light, _) in enumerate(exit_colours(num_exits))
    ]


def drawn(figure: Figure) -> Drawing:
    """Draw a figure, on white."""
    svg, png = io.BytesIO(), io.BytesIO()
    with _canvas(figure) as canvas:
        canvas.savefig(svg, format="svg", metadata={"Date": None})
        canvas.set_layout_engine("none")  # it has found its place
        canvas.savefig(png, format="png", dpi=PNG_DPI)
    return Drawing(figure, svg.getvalue().decode(), png.getvalue())


def inline_svg(drawing: Drawing, colours: Mapping[str, tuple[str, str]]) -> str:
    """The drawing as an SVG element of a page, its colours CSS variables, with a text for readers.

    Args:
        drawing: The drawing.
        colours: What ``css_colours`` says.
    """
    svg = drawing.svg[drawing.svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)  # what matplotlib notes for itself
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows these
    svg = re.sub(r'(id="|"#|url\(#)', rf"\g<1>{drawing.figure.name}-", svg)  # unique on the page
    names = {light: name for name, (light, _) in colours.items()}
    svg = re.sub("|".join(names), lambda found: f"var(--{names[found[0]]})", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(drawing.figure.alt)}" ', 1)


def css_colours(exit_counts: Iterable[int]) -> dict[str, tuple[str, str]]:
    """CSS variable → (light, dark) of all that figures of networks with so many exits use."""
    exits = {
        f"e{k}of{num_exits}": pair
        for num_exits in sorted(set(exit_counts))
        for k, pair in enumerate(exit_colours(num_exits), 1)
    }
    return {**PALETTE, **exits}


def per_exit(num_exits: int, unit: str) -> list[str]:
    """Names of columns that hold a number of each exit."""
    return [f"exit_{k}_{unit}" for k in range(1, num_exits + 1)]


def beside(first_N: Any, values_NM: Any) -> list[tuple[Any, ...]]:
    """Rows of numbers, each begun by one of ``first_N``."""
    rows = zip(np.asarray(first_N).tolist(), np.asarray(values_NM).tolist(), strict=True)
    return [(first, *values) for first, values in rows]


def rows_of(count: int) -> int:
    """How many rows ``small_multiples`` makes of ``count`` panels."""
    return math.ceil(count / COLUMNS)


def small_multiples(
    canvas: Canvas, count: int, x: str, y: str, *, share: bool = True
) -> list[Axes]:
    """``count`` panels in rows of a few, on shared axes with one name each."""
    grid = canvas.subplots(
        rows_of(count), min(count, COLUMNS), squeeze=False, sharey=share,
        sharex="col" if share else False,
    )  # fmt: skip
    panels = list(grid.flat)
    for unused in panels[count:]:
        unused.set_visible(False)
    for above in panels[max(0, count - COLUMNS) : count]:
        above.tick_params(labelbottom=True)  # nothing is below it
    canvas.supxlabel(x)
    canvas.supylabel(y)
    return panels[:count]


def over_steps(
    canvas: Canvas, panels: Mapping[str, Sequence[Line]], y: str, top: float | None = None
) -> None:
    """Lines over training: a panel a title, all of one height; ``top``: from 0 to there."""
    for axes, title in zip(small_multiples(canvas, len(panels), STEPS, y), panels, strict=True):
        plot(axes, panels[title])
        axes.set_title(title)
        axes.locator_params(axis="x", nbins=3)
        if top is not None:
            axes.set_ylim(0, top)
    legend(canvas, "outside upper left", columns=5)


def plot(axes: Axes, lines: Iterable[Line], **labels: str) -> None:
    """Draw lines; a lone point is marked."""
    for line in lines:
        lone = {"marker": "."} if len(line.points) == 1 else {}
        x_N, y_N = np.reshape(line.points, (-1, 2)).T
        axes.plot(x_N, y_N, label=line.name if line.listed else None, **(lone | {**line.style}))
    axes.set(**labels)


def legend(
    canvas: Canvas, place: Literal["outside upper left", "outside lower left"], *, columns: int
) -> None:
    """One legend of all axes, above or under them, so that it covers no data."""
    of_axes = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in canvas.axes]
    keys: dict[Any, Any] = {label: handle for handle, label in chain(*of_axes)}
    canvas.legend([*keys.values()], [*keys], loc=place, ncols=columns)


def matrix(
    axes: Axes, values_RR: NDArray[Any], names: Sequence[str], largest: float, **how: Any
) -> QuadMesh:
    """Draw shares or weights, the first at the top left; returns what maps them to colours."""
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(values_RR), cmap="cividis", vmin=0, vmax=largest, **how
    )
    places = np.arange(len(names)) + 0.5
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.tick_params(length=0)
    axes.set(aspect="equal", ylim=(len(names), 0))
    axes.grid(False)
    return mesh


@contextmanager
def _canvas(figure: Figure) -> Iterator[Canvas]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a run's name, in a PNG
        canvas = Canvas(figsize=(WIDTH_INCHES, figure.height), layout="constrained")
        figure.draw(canvas)
        yield canvas
