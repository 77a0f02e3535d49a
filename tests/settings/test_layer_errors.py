"""Every mistake is reported, together, with the layer it came from and what to do."""

import time
from pathlib import Path

import pytest

from hdkd_cli.errors import PresetError, SettingsError
from hdkd_cli.settings.layers import resolve


def problems(*assignments: str, **layers: object) -> list[str]:
    """The lines of the error, without its heading."""
    with pytest.raises(SettingsError) as caught:
        resolve(**({"environment": {}, "assignments": assignments} | layers))  # type: ignore[arg-type]
    lines = [str(problem) for problem in caught.value.problems]
    if len(lines) > 1:
        heading, *listed = str(caught.value).splitlines()
        assert heading == f"{len(lines)} settings are wrong:"
        assert listed == [f"  {line}" for line in lines]
    return lines


def test_the_parts_of_a_problem() -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(environment={}, assignments=["data.flipp=1"])
    (problem,) = caught.value.problems
    assert (problem.key, problem.value, problem.origin) == ("data.flipp", 1, "--set")
    assert problem.closest == ("data.flip",)
    assert str(caught.value) == problem.message == "data.flipp (--set): no such setting"
    assert caught.value.hint == "closest: data.flip = false"
    assert caught.value.subject == "data.flipp"


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("data.flipp=1", "data.flipp (--set): no such setting; closest: data.flip = false"),
        ("trainig.seed=1", "trainig.seed (--set): no such setting; closest: training.seed = 0"),
        (
            "lr=1",
            "lr (--set): no such setting; closest: weights.lr = none, optimizer.lr = 0.1",
        ),
        ("metod=hdkd", "metod (--set): no such setting; closest: method"),
        ("zzz.qqq=1", "zzz.qqq (--set): no such setting; `hdkd settings show` lists all"),
        ("data.flip.x=1", "data.flip.x (--set): no such setting; closest: data.flip = false"),
        ("data=3", "data = 3 (--set): is a section; set data.KEY"),
        (
            "training.seed",
            "--set training.seed: has no value; write SECTION.KEY=VALUE or method=NAME",
        ),
        (
            "method=magic",
            'method = "magic" (--set): no such method; '
            "there are: joint, dbt, naive-dkd, half-dkd, ensemble, pcgrad, hmsdnet, hdbt, "
            "hdkd, static",
        ),
        (
            "model.name=vgg",
            'model.name = "vgg" (--set): no such network; '
            'there are: "msdnet", "ranet", "torchvision:MODEL", "timm:MODEL", '
            '"package.module:factory"',
        ),
        (
            "model.name=msdent",
            'model.name = "msdent" (--set): no such network; closest: "msdnet"; '
            'there are: "msdnet", "ranet", "torchvision:MODEL", "timm:MODEL", '
            '"package.module:factory"',
        ),
        (
            "model.cut_at=2",
            "model: cut_at needs static = true; "
            "model.static = false (default), model.cut_at = 2 (--set)",
        ),
        (
            "data.name=mnist",
            'data.name = "mnist" (--set): '
            'no such data set; there are: "digits", "cifar10", "cifar100", "folder", "imagenet", '
            '"package.module:factory"',
        ),
        ("training.epochs=ten", 'training.epochs = "ten" (--set): should be a valid integer'),
        ("training.epochs=1.5", "training.epochs = 1.5 (--set): should be a valid integer"),
        ("training.seed=true", "training.seed = true (--set): should be a valid integer"),
        ("training.epochs=0", "training.epochs = 0 (--set): should be greater than 0"),
        ("training.epochs=none", 'training.epochs = "none" (--set): should be a valid integer'),
        ("data.flip=yes", 'data.flip = "yes" (--set): should be a valid boolean'),
        ("objective.temperature=inf", "objective.temperature = Infinity (--set): "
         "should be a finite number"),
        ("data.mean=1,2", "data.mean = [1, 2] (--set): item 3 is missing"),
        (
            "schedule.milestones=0.5,x",
            'schedule.milestones = [0.5, "x"] (--set): item 2 should be a valid number',
        ),
        (
            "training.accumulate=3",
            "training: batch_size must be a multiple of accumulate; "
            "training.batch_size = 64 (default), training.accumulate = 3 (--set)",
        ),
        (
            "weights.init=dbt",
            'weights.init = "dbt" (--set): needs objective.teachers = "last" '
            "(distillation from the last exit only); "
            'objective.teachers = "later" (default)',
        ),
        ("data.root=\udc80", "data.root (--set): is not valid Unicode text"),
    ],
)  # fmt: skip
def test_one_mistake_one_line(assignment: str, line: str) -> None:
    assert problems(assignment) == [line]


def test_exits_of_a_backbone_are_a_number_or_names() -> None:
    assert problems("model.name=timm:resnet18", "model.exits=[1, 2]") == [
        "model.exits = [1, 2] (--set): should be a number of exits, or names of blocks: "
        "layer1,layer2"
    ]


def test_all_mistakes_of_all_layers_at_once(tmp_path: Path) -> None:
    preset, config = tmp_path / "p.toml", tmp_path / "c.toml"
    preset.write_text("epochs = 3\n[modle]\nexits = 3\n[data]\nname = 'mnist'\n")
    config.write_text("schema = 'hdkd/settings/9'\nweights = 'hdkd'\n[training]\nbatch_size = -1\n")
    lines = problems(
        "nonsense",
        "model.name=vgg",
        "model.growth=4",
        "method=magic",
        "model.depth=3",
        preset=str(preset),
        config=config,
        environment={"HDKD_DATA_ROOT": "x", "HDKD_ZZZ": "1", "HDKD_TRAINING__SEDE": "2"},
        flags={"--seed": -1},
    )
    expected = [
        f"schema = \"hdkd/settings/9\" (file {config}): this hdkd reads hdkd/settings/1",
        "HDKD_DATA_ROOT (environment): no such variable; closest: HDKD_DATA__ROOT",
        "HDKD_ZZZ (environment): no such variable; settings are HDKD_SECTION__KEY",
        "--set nonsense: has no value",
        'method = "magic" (--set)',
        'model.name = "vgg" (--set)',
        f"epochs (preset {preset}): no such setting; closest: training.epochs = 30",
        f"modle (preset {preset}): no such setting; closest: model",
        f"weights = \"hdkd\" (file {config}): is a section",
        "training.sede (environment HDKD_TRAINING__SEDE): no such setting; "
        "closest: training.seed = -1",
        "model.depth (--set): no such setting",
        f'data.name = "mnist" (preset {preset})',
        "training.seed = -1 (--seed): should be greater than or equal to 0",
        f"training.batch_size = -1 (file {config}): should be greater than 0",
    ]  # fmt: skip
    for start in expected:
        assert [line for line in lines if line.startswith(start)], start
    assert len(lines) == len(expected)


def test_defaults_are_those_of_the_network() -> None:
    (line,) = problems("model.name=ranet", "model.scales=1,2")
    assert "model.growth_factors = [4, 2, 1] (default)" in line


def test_network_of_ones_own_needs_its_exits() -> None:
    assert problems("model.name=a:b", "model.base=1") == [
        'model.base (--set): model.name = "a:b" (--set) has only '
        "model.name, model.static, model.cut_at, model.exits, model.options",
        'model.exits: must be given when model.name = "a:b" (--set)',
    ]


def test_options_that_are_no_table(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[model]\nname = 'a:b'\nexits = 2\noptions = 3\n")
    line = f"model.options = 3 (file {config}): should be an object"
    assert problems("model.options.x=1", config=config) == [line]
    assert problems(config=config) == [line]


@pytest.mark.parametrize("value", ["[1]", "3", "{a = 1}", "1979-05-27"])
def test_names_of_the_wrong_type(value: str, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"method = {value}\n[data]\nname = {value}\n[model]\nname = {value}\n")
    starts = ("method = ", "data.name = ", "model.name = ")
    lines = problems(config=config)
    assert len(lines) == 3
    assert all(any(line.startswith(start) for line in lines) for start in starts)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, broken, folder = tmp_path / "no.toml", tmp_path / "b.toml", tmp_path
    broken.write_text("[data]\nflip = maybe\n")
    other = "data.flipp (--set): no such setting; closest: data.flip = false"
    assert problems("data.flipp=1", config=missing) == [f"{missing}: no such file", other]
    assert problems(config=folder) == [f"{folder}: is a folder, not a file"]
    (line,) = problems(config=broken)
    assert line.startswith(f"{broken}: is not valid TOML: ")
    assert "line 2" in line
    broken.write_bytes(b"\xff\xfe")
    assert problems(config=broken) == [f"{broken}: is not a text file (UTF-8)"]


def test_missing_preset_names_the_closest() -> None:
    with pytest.raises(
        PresetError, match=r"no such preset\nhint: closest: digits; there are: .*digits"
    ):
        resolve("digit", environment={})


def test_very_many_unknown_keys_are_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("".join(f"key{n} = {n}\n" for n in range(10_000)))
    began = time.monotonic()
    with pytest.raises(SettingsError) as caught:
        resolve(environment={}, config=config)
    assert len(caught.value.problems) == 10_000
    heading, *listed = str(caught.value).splitlines()
    assert heading == "10000 settings are wrong:"
    assert listed[-1] == "  and 9950 more"
    assert len(listed) == 51
    assert time.monotonic() - began < 30  # looking up what each is closest to takes minutes


@pytest.mark.parametrize("value", ["9" * 5000, "9" * 30, "[" * 2000 + "]" * 2000])
def test_values_beyond_all_limits(value: str) -> None:
    (line,) = problems(f"training.epochs={value}")
    assert line.endswith("… (--set): should be a valid integer") or len(value) == 30
    assert len(line) < 300
