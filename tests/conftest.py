"""Shared by all tests: one thread, no settings from the caller's environment, a small run."""

import os
from pathlib import Path

import pytest
import torch

from hdkd_cli.settings.schema import (
    MSDNetSettings,
    Settings,
    TrainingSettings,
    WeightSettings,
)

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_foreign_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("HDKD_") and n != "HDKD_ORACLE_DIR"]:
        monkeypatch.delenv(name)


def small_settings(**sections: object) -> Settings:
    """A 3-exit network on digits that trains for a dozen quick steps."""
    sections = {
        "model": MSDNetSettings(exits=3, channels=8, growth=4),
        "training": TrainingSettings(epochs=2, batch_size=16, log_every=3),
        "weights": WeightSettings(interval=2, val_batch_size=16),
        **sections,
    }
    data = {"train_per_class": 10, "val_per_class": 5}
    return Settings.model_validate({"data": data} | sections)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"
