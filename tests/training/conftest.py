"""Runs that nothing interrupted, to compare others with: each trained once."""

from collections.abc import Callable

import pytest
from test_loop import begin, go

from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.schema import Settings

Whole = Callable[[Settings], RunFolder]


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The run with these settings from beginning to end. Tests only read it."""
    runs: dict[str, RunFolder] = {}

    def trained(settings: Settings) -> RunFolder:
        key = settings.model_dump_json()
        if key not in runs:
            runs[key] = begin(tmp_path_factory.mktemp("whole"), settings)
            go(runs[key], settings)
        return runs[key]

    return trained
