"""Shared by all tests: one thread, no settings from the caller's environment."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from hdkd_cli.data.in_memory import images, pool
from hdkd_cli.data.sources.base import ArraySource, Source
from hdkd_cli.files import sha256_bytes
from hdkd_cli.settings.schema import DataSettings
from hdkd_cli.settings.transform import describe

torch.set_num_threads(1)
settings.register_profile("hdkd", deadline=None)  # no timing is asserted in tests
settings.load_profile("hdkd")


@pytest.fixture(autouse=True)
def _no_foreign_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("HDKD_") and n != "HDKD_ORACLE_DIR"]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def _arrays_are_decoded_once() -> Iterator[None]:
    """Images in memory, as the bundled digits: once for each size, not once for each run."""

    kept: dict[tuple[str, str], Tensor] = {}

    def decoded(source: Source, settings: DataSettings) -> Tensor:
        if not isinstance(source, ArraySource):
            return pool.decoded_pool(source, settings)
        key = sha256_bytes(source.pixels_NHW3.tobytes()), describe(settings)
        if key not in kept:
            kept[key] = pool.decoded_pool(source, settings)
        return kept[key].clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "decoded_pool", decoded)
        yield


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"
