"""Runs of a study that leave their arithmetic open compute as its first one did."""

from __future__ import annotations

import pytest

from hdkd_cli.errors import HdkdError, UsageError
from hdkd_cli.records.study import StudyRow
from hdkd_cli.settings.layers import Resolved
from hdkd_cli.study.conduct import Conduct
from hdkd_cli.study.jobs import Workers
from hdkd_cli.study.plan import Cell
from hdkd_cli.study.rows import settings_sha256

PLAN = """
[study]
seeds = [0, 1]
references = ["joint"]
budgets = [0.6]
[settings.tiny]
preset = "digits"
set = { "training.precision" = "auto" }
[methods.joint]
set = { method = "joint" }
[methods.learned]
set = { method = "hdkd" }
"""


@pytest.fixture
def conduct(tmp_path):
    """A study whose first run was trained in bf16 and NHWC."""
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    conduct = Conduct.open(plan, tmp_path / "study", flags={}, note=lambda _: None)
    cell = conduct.cells[0]
    settings = conduct.resolved[cell].settings
    training = settings.training.model_copy(update={"precision": "bf16", "channels_last": True})
    row = StudyRow(
        setting=cell.setting, method=cell.method, seed=cell.seed, epochs=1,
        split=conduct.plan.study.split,
        samples=10, top1_pct=(50.0,) * 5, mean_top1_pct=50.0, nll=(1.0,) * 5, budgets=(0.6,),
        single_top1_pct=(50.0,), combined_top1_pct=(50.0,), seconds=1.0, precision="bf16",
        channels_last=True, revision=None, device="cpu",
        settings_sha256=settings_sha256(settings.model_copy(update={"training": training})),
    )  # fmt: skip
    rows = conduct.folder / "rows"
    rows.mkdir(parents=True)
    (rows / f"{cell.name}.json").write_text(row.model_dump_json())
    return conduct


def reopened(conduct, tmp_path, plan):
    path = tmp_path / "plan.toml"
    path.write_text(plan)
    return Conduct.open(path, conduct.folder, flags={}, note=lambda _: None)


def test_the_rest_computes_alike(conduct, tmp_path, monkeypatch):
    asked: dict[str, Resolved] = {}

    def make(_workers: Workers, cell: Cell, resolved: Resolved, _splits: object) -> None:
        asked[cell.name] = resolved
        raise HdkdError("not trained here")

    monkeypatch.setattr(Workers, "make", make)
    reopened(conduct, tmp_path, PLAN).run(jobs=1)
    assert len(asked) == 3
    for resolved in asked.values():
        training = resolved.settings.training
        assert (training.precision, training.channels_last) == ("bf16", True)


def test_what_the_plan_says_is_no_matter_of_the_first_run(conduct, tmp_path):
    plan = PLAN.replace('"training.precision" = "auto"', '"training.precision" = "fp32"')
    with pytest.raises(UsageError, match="another plan"):
        reopened(conduct, tmp_path, plan)
