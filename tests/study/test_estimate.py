"""What an estimate takes for the length of a run is the number of steps that the run takes."""

import pytest
import torch
from small_runs import small_settings

from hdkd_cli.data import open_data
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.metrics import read_metrics
from hdkd_cli.settings.schema import WeightSettings
from hdkd_cli.study.conduct import steps_in_all
from hdkd_cli.training import continuations, loop
from hdkd_cli.training.session import run_training
from hdkd_cli.training.step import take_step

FIXED = WeightSettings(learned=False)
CONTINUATIONS = WeightSettings(learner="continuations", rounds=2)


@pytest.mark.parametrize(
    "weights",
    [FIXED, CONTINUATIONS, CONTINUATIONS.model_copy(update={"rounds": 1, "horizon": 2})],
    ids=["fixed", "continuations", "given horizon"],
)
def test_the_steps_of_a_run_are_those_that_it_takes(weights, tmp_path, monkeypatch):
    taken = []
    for place in (loop, continuations):
        monkeypatch.setattr(place, "take_step", lambda *a: taken.append(1) or take_step(*a))
    settings = small_settings(weights=weights)
    run = RunFolder.create(tmp_path, "test", settings)
    run_training(
        run, settings, open_data(settings.data), torch.device("cpu"), sinks=[], resume=False
    )
    assert steps_in_all(settings, next(iter(read_metrics(run.metrics)))) == len(taken) > 0
