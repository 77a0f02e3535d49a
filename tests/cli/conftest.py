"""A tiny trained run, made once through the command line."""

import contextlib
import io
import shutil
from pathlib import Path

import pytest
from small_runs import SMALL

from hdkd_cli import app


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("session") / "runs"
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert app.run(["train", *SMALL, "--runs-dir", str(runs), "--name", "once"]) == 0
        assert app.run(["calibrate", str(runs / "once")]) == 0
        assert app.run(["eval-budget", str(runs / "once")]) == 0
    assert out.getvalue().splitlines()[0] == str(runs / "once")
    return runs / "once"


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(trained_once, tmp_path / "runs" / "copy", symlinks=True))
