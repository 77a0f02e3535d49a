"""`hdkd doctor`."""

import json
import os
import sys
from functools import partial

import pytest
import torch

from hdkd_cli.app import run
from hdkd_cli.commands import doctor
from hdkd_cli.settings import presets

Captured = pytest.CaptureFixture[str]


def test_this_machine_can_train(capsys: Captured) -> None:
    assert run(["doctor"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "hdkd/doctor/1"
    assert record["healthy"] is True
    checks = {check["check"]: check for check in record["checks"]}
    assert {"python", "torch", "typer", "torch and torchvision", "cpu", "disk"} <= set(checks)
    assert checks["arithmetic on cpu"]["status"] == "ok"
    assert "forward and backward agree" in checks["arithmetic on cpu"]["detail"]
    assert all(check["status"] in {"ok", "warning"} for check in checks.values())


def test_what_is_broken_is_told_and_the_rest_is_still_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(presets, "DEFAULT", "nosuch")
    monkeypatch.setattr(doctor, "SELF_TEST_TOLERANCE", -1.0)  # no result is good enough
    monkeypatch.setenv("HDKD_SEED", "1")
    assert run(["doctor"]) == 3
    record = json.loads(capsys.readouterr().out)
    assert record["healthy"] is False
    broken = {c["check"]: c["detail"] for c in record["checks"] if c["status"] == "error"}
    assert set(broken) >= {"environment", "presets", "arithmetic on cpu"}
    assert "HDKD_SEED" in broken["environment"]
    assert "derivatives differ" in broken["arithmetic on cpu"]
    assert record["checks"][0] == {
        "check": "python", "status": "ok", "detail": record["checks"][0]["detail"],
    }  # fmt: skip


def test_it_survives_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run(["doctor"]) == 3
    record = json.loads(capsys.readouterr().out)
    broken = [check["check"] for check in record["checks"] if check["status"] == "error"]
    assert broken == ["torch and torchvision", "cpu"]


def test_packages_that_are_old_or_not_there() -> None:
    def status(*arguments: str | None) -> str:
        return doctor._check("x", partial(doctor._package, *arguments)).status  # type: ignore[arg-type]

    assert status("torch", "1.0", None) == "ok"
    assert status("torch", "999.0", None) == "error"
    assert status("no-such-package-at-all", "1.0", None) == "error"
    assert status("no-such-package-at-all", "1.0", "plots") == "warning"


def test_more_threads_than_cores_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    assert "OMP_NUM_THREADS" in doctor._check("cpu", doctor._cpu).detail


@pytest.mark.parametrize(
    ("threads", "load", "advice"),
    [(4, 0.4, None), (3, 1.2, None), (4, 0.9, 3), (4, 2.7, 1), (2, 9.0, 1), (1, 9.0, None)],
)
def test_more_threads_than_free_cores_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, threads: int, load: float, advice: int | None
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    check = doctor._check("cpu", doctor._cpu)
    assert check.status == ("ok" if advice is None else "warning")
    assert advice is None or check.detail.endswith(f"OMP_NUM_THREADS={advice}")


NETS = """
from torch import nn
from hdkd_cli.models import MultiExitNet, Stage

class Wide(Stage):
    head_keys = ("x",)

    def __init__(self, width_in, width, num_classes):
        super().__init__()
        self.layer, self.read = nn.Conv2d(width_in, width, 3), nn.Linear(width, num_classes)

    def body(self, state):
        return {"x": self.layer(state.get("x", state.get("image"))).relu()}

    def head(self, state):
        return self.read(state["x"].mean((2, 3)))

class Shared(Wide):
    def body(self, state):
        return {"x": super().body(state)["x"] - state["image"].mean()}

def net(exits, num_classes, image_size, width=4, first=Wide):
    stages = [first(3, width, num_classes)]
    stages += [Wide(width, width, num_classes) for _ in range(exits - 1)]
    return MultiExitNet(stages, name="mine", num_classes=num_classes,
                        input_shape=(3, image_size, image_size), arguments={"width": width})

def shared(**arguments):
    return net(first=Shared, **arguments)
"""


def test_a_network_of_ones_own_is_checked(tmp_path, monkeypatch, capsys: Captured) -> None:
    (tmp_path / "doctors_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    sizes = ["--set", "model.exits=2", "--set", "model.options.width=5"]
    sizes += ["--set", "data.image_size=9"]
    assert run(["doctor", "--network", "doctors_nets:net", *sizes]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["healthy"]
    assert "forward mode equals reverse mode" in [check["check"] for check in record["checks"]]

    assert run(["doctor", "--network", "doctors_nets:shared", *sizes]) == 3
    record = json.loads(capsys.readouterr().out)
    (broken,) = [check for check in record["checks"] if check["status"] == "error"]
    assert broken["check"] == "any subset of samples narrows"

    assert run(["doctor", "--network", "doctors_nets:nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
    assert run(["doctor", "--set", "model.exits=2"]) == 2
