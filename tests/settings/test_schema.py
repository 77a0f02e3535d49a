"""What settings that are absent stand for."""

import pytest

from hdkd_cli.settings.schema import Settings


@pytest.mark.parametrize(
    ("given", "batch", "size"),
    [(None, 1024, 256), (None, 67, 16), (None, 8, 16), (5, 1024, 5)],
)
def test_an_update_reads_a_quarter_of_a_batch_unless_told(given, batch, size):
    settings = Settings.model_validate(
        {"weights": {"val_batch_size": given}, "training": {"batch_size": batch}}
    )
    assert settings.val_batch_size == size
