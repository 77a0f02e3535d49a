"""What a run gives its page: the stops of the slider, and images to begin with."""

from __future__ import annotations

from hdkd_cli.evaluation.policy import ExitPolicy, OperatingPoint
from hdkd_cli.evaluation.table import tabulate
from hdkd_cli.inference.web.folder import Example, stops_of
from hdkd_cli.library.opened import OpenedRun
from hdkd_cli.records.export import PageStop

EXAMPLES = 12
"""Images that come with a page."""


def stops(run: OpenedRun, family: ExitPolicy, chosen: OperatingPoint) -> tuple[PageStop, ...]:
    """All points of a family, and ``chosen``, which was solved for a budget."""
    table = tabulate(run.scores("val"), family.combination, family.temperatures, family.confidence)
    wider = family.model_copy(update={"points": (*family.points, chosen)})
    return stops_of(wider, table.macs_K[-1], 100 * float(table.correct_KN[-1].mean()))


def examples(run: OpenedRun) -> list[Example]:
    """Images of the test split, drawn at random, always the same.

    Raises:
        DataError: they are missing, or one cannot be read.
    """
    data = run.data("test")
    source = data.images.source
    indices_N = data.splits["test"].indices_N[run.drawn("test", EXAMPLES)]
    return [Example(source.image(i), int(source.labels_N[i])) for i in indices_N.tolist()]
