"""Runs small enough for tests: 3 exits of 2 scales on a few digits, a dozen quick steps."""

from hdkd_cli.settings.networks import MSDNetSettings
from hdkd_cli.settings.schema import Settings, TrainingSettings, WeightSettings

# The same as arguments of ``hdkd train``, for three steps.
SMALL = [
    "digits",
    *("--set", "model.exits=3", "--set", "model.channels=8", "--set", "model.growth=4"),
    *("--set", "model.growth_factors=[1, 2]", "--set", "model.bottleneck_factors=[1, 2]"),
    *("--set", "data.image_size=12"),
    *("--set", "data.train_per_class=10", "--set", "data.val_per_class=5"),
    *("--set", "training.batch_size=16", "--set", "training.max_steps=3"),
    *("--set", "weights.interval=2", "--device", "cpu"),
]


def small_settings(**sections: object) -> Settings:
    """A 3-exit network on digits that trains for a dozen quick steps."""
    sections = {
        "model": MSDNetSettings(
            exits=3, channels=8, growth=4, growth_factors=(1, 2), bottleneck_factors=(1, 2)
        ),
        "training": TrainingSettings(epochs=2, batch_size=16, log_every=3),
        "weights": WeightSettings(interval=2, val_batch_size=16),
        **sections,
    }
    data = {"train_per_class": 10, "val_per_class": 5, "image_size": 12}
    return Settings.model_validate({"data": data} | sections)


def changed(settings: Settings, section: str, **values: object) -> Settings:
    """Settings of which one section has other values."""
    part = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: part})
