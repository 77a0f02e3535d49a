"""Shared by all tests: one thread, no settings from the caller's environment."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("hdkd", deadline=None)  # no timing is asserted in tests
settings.load_profile("hdkd")


@pytest.fixture(autouse=True)
def _no_foreign_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("HDKD_") and n != "HDKD_ORACLE_DIR"]:
        monkeypatch.delenv(name)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"
