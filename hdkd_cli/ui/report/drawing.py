"""How figures look: one palette for light and dark, SVG that takes its colours from the page.

A figure is drawn once, in the light colours. On a page every colour of the palette is replaced by a
CSS variable, so that the page's theme decides. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from hdkd_cli.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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

WIDTH_INCHES = 4.8  # narrow enough for a telephone, and two of them side by side for a desk
COLUMNS = 3  # small multiples side by side
PNG_DPI = 200


@dataclass(frozen=True)
class Figure:
    """A picture and the numbers it shows.

    Attributes:
        name: Stem of its file names.
        section: Which part of a report it belongs to.
        title: What it shows, a heading.
        caption: How to read it.
        alt: What it shows, in words.
        columns: Names of the data's columns, with units.
        rows: The data.
        draw: Draws it on an empty canvas.
        height: Inches.
    """

    name: str
    section: Literal["accuracy", "leaving", "training"]
    title: str
    caption: str
    alt: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    draw: Callable[[Canvas], None]
    height: float = 3.3


@dataclass(frozen=True)
class Drawing:
    """A figure as it is drawn.

    Attributes:
        figure: What it shows.
        svg: The file; text in it stays text.
        png: The file.
    """

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
        spread = max(1, num_exits - 1)
        at = (low + (high - low) * k / spread for k in range(num_exits))
        return [to_hex(colormaps["viridis"](x)) for x in at]

    return tuple(zip(of(0.86, 0.02), of(0.98, 0.3), strict=True))


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


def rows_of(count: int) -> int:
    """How many rows ``small_multiples`` makes of ``count`` panels."""
    return math.ceil(count / COLUMNS)


def small_multiples(canvas: Canvas, count: int, *, share: bool = True) -> list[Axes]:
    """``count`` panels in rows of a few, on shared axes."""
    grid = canvas.subplots(
        rows_of(count), min(count, COLUMNS), squeeze=False, sharey=share,
        sharex="col" if share else False,
    )  # fmt: skip
    panels = list(grid.flat)
    for unused in panels[count:]:
        unused.set_visible(False)
    for above in panels[max(0, count - COLUMNS) : count]:
        above.tick_params(labelbottom=True)  # nothing is below it
    return panels[:count]


def legend_below(canvas: Canvas, axes: Axes, *, columns: int) -> None:
    """A legend under the axes, so that it covers no data."""
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=columns)


@contextmanager
def _canvas(figure: Figure) -> Iterator[Canvas]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    style: Any = {
        "font.family": "sans-serif",
        "font.size": 9.5,
        "axes.labelsize": 9.5,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.facecolor": PAPER,
        "figure.facecolor": PAPER,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "legend.handlelength": 1.4,
        "legend.columnspacing": 1.4,
        "svg.fonttype": "none",
        "svg.hashsalt": "hdkd",  # the same picture every time
        "text.parse_math": False,  # a dollar in a run's name is a dollar
    }
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a run's name, in a PNG
        canvas = Canvas(figsize=(WIDTH_INCHES, figure.height), layout="constrained")
        figure.draw(canvas)
        yield canvas
