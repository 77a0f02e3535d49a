"""A run folder may come from anybody: the code that it names is imported only if it is trusted."""

import shutil
import sys
from pathlib import Path

import pytest

import hdkd_cli
from hdkd_cli import app
from hdkd_cli.errors import UsageError
from hdkd_cli.settings.trust import trusting_environment

ANY = pytest.CaptureFixture[str]
NETWORK = """
from hdkd_cli.models.build import build_model
from hdkd_cli.settings.networks import MSDNetSettings

def net(exits, num_classes, image_size):
    settings = MSDNetSettings(exits=exits, channels=8, growth=4)
    return build_model(settings, num_classes=num_classes, image_size=image_size)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported, and is not yet."""
    name = f"{tmp_path.name}_net".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def received(trained: Path, mine: str) -> Path:
    """A run whose settings name a network of its sender's."""
    settings = trained / "settings.toml"
    before, _, rest = settings.read_text().partition("[model]")
    rest = rest[rest.index("[objective]") :]
    settings.write_text(f'{before}[model]\nname = "{mine}:net"\nexits = 3\n\n{rest}')
    shutil.rmtree(trained / "scores")
    return trained


@pytest.mark.parametrize(
    "verb",
    [
        ["eval-anytime"],
        ["calibrate"],
        ["eval-budget"],
        ["scores", "-o", "x"],
        ["predict", "x.png"],
        ["profile"],
        ["export", "--to", "onnx", "-o", "x"],
        ["train", "--resume"],
    ],
    ids=lambda verb: verb[0],
)
def test_no_verb_imports_what_a_run_names(
    received: Path, mine: str, verb: list[str], capsys: ANY
) -> None:
    name, *rest = verb
    if name == "train":
        arguments = [*verb, str(received), "--set", "training.max_steps=4"]
    else:
        arguments = [name, str(received), *rest]
    assert app.run(arguments) == 2
    assert mine not in sys.modules
    captured = capsys.readouterr()
    assert captured.out == ""
    said = [line for line in captured.err.splitlines() if line.startswith(("error", "hint"))]
    assert said == [
        f"error: {received}/settings.toml: names code to run, {mine}:net, which is not trusted",
        "hint: if you know it, pass --trust-code (trust_code=True in Python) or set "
        f"HDKD_TRUST_CODE={mine}",
    ]


def test_who_is_trusted(
    runs_dir: Path, mine: str, capsys: ANY, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["--set", f"model.name={mine}:net", "--set", "model.exits=3"]
    few = ["--set", "data.train_per_class=10", "--set", "data.val_per_class=5", "--device", "cpu"]
    short = ["--set", "training.max_steps=2", "--set", "training.batch_size=16"]
    train = ["train", *few, *short, *own, "--runs-dir", str(runs_dir), "--name", "r"]
    assert app.run(train) == 0  # named on one's own command line
    run = str(runs_dir / "r")

    assert app.run(["eval-anytime", run]) == 2  # a command's trust is its own
    assert app.run(["eval-anytime", run, "--trust-code"]) == 0
    shutil.rmtree(runs_dir / "r" / "scores")
    monkeypatch.setenv("HDKD_TRUST_CODE", f"other, {mine}x")
    assert app.run(["eval-anytime", run]) == 2
    monkeypatch.setenv("HDKD_TRUST_CODE", f"other, {mine}")
    assert app.run(["eval-anytime", run]) == 0
    monkeypatch.delenv("HDKD_TRUST_CODE")
    assert app.run(["train", "--resume", run, *own]) == 0

    with pytest.raises(UsageError, match="trust_code=True"):
        hdkd_cli.load(run)
    assert hdkd_cli.load(run, trust_code=True).net.num_exits == 3


def test_a_process_of_ours_trusts_what_its_plan_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trusting_environment(["msdnet", 3, None]) == {}
    monkeypatch.setenv("HDKD_TRUST_CODE", "b, c")
    given = trusting_environment(["a.net:make", ("losses:margin",), "digits"])
    assert given == {"HDKD_TRUST_CODE": "a.net,b,c,losses"}
