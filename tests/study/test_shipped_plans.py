"""The plans that come with the repository: all settings of all methods can be trained."""

from pathlib import Path

import pytest

from hdkd_cli.study.plan import cells, read_plan, resolved

PLANS = sorted((Path(__file__).parents[2] / "benchmarks" / "studies").rglob("*.toml"))


def test_plans_are_there():
    assert len(PLANS) >= 3


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_run_of_a_plan_has_settings(path, tmp_path):
    plan = read_plan(path)
    (seed, *_) = plan.study.seeds
    for cell in (cell for cell in cells(plan) if cell.seed == seed):
        settings = resolved(plan, cell, tmp_path, {"--data-dir": tmp_path}).settings
        assert settings.training.seed == seed
        learns = "hdkd" in cell.method or cell.method.startswith("continuations")
        assert settings.weights.learned == (learns and plan.methods[cell.method].replay is None)
