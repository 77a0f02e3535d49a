"""Who wins, what a method stands for, what a change of data set or network drops."""

from pathlib import Path

import pytest

from hdkd_cli.models.build import build_model
from hdkd_cli.settings.data import DataSettings
from hdkd_cli.settings.datasets import DATASETS
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.layers import Resolved, resolve, resolve_over
from hdkd_cli.settings.methods import METHODS
from hdkd_cli.settings.networks import CustomModelSettings, MSDNetSettings
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.sources import FLAGS
from hdkd_cli.settings.toml import from_toml, to_toml


def toml(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def given(*assignments: str, **layers: object) -> Resolved:
    return resolve(**({"environment": {}, "assignments": assignments} | layers))  # type: ignore[arg-type]


def test_no_layers_are_the_defaults() -> None:
    resolved = given()
    assert resolved.settings == Settings()
    assert resolved.notes == []
    assert set(resolved.origin) == set(leaves(Settings()))
    assert set(resolved.origin.values()) == {"default"}


def test_each_layer_beats_those_below(tmp_path: Path) -> None:
    preset = toml(tmp_path / "p.toml", "[data]\nname = 'cifar100'\npadding = 1\n")
    config = toml(tmp_path / "c.toml", "[data]\npadding = 3\n")
    variables = {"HDKD_DATA__PADDING": "5"}
    stack = [
        ({}, "default", 2),
        ({"assignments": ["data.name=cifar100"]}, "dataset", 4),
        ({"preset": preset}, f"preset {preset}", 1),
        ({"config": Path(config)}, f"file {config}", 3),
        ({"environment": variables}, "environment HDKD_DATA__PADDING", 5),
        ({"assignments": ["data.padding=7"]}, "--set", 7),
    ]
    layers: dict[str, object] = {}
    for layer, origin, padding in stack:
        layers |= layer
        if origin == "preset " + preset:
            layers.pop("assignments")
        resolved = given(**({"assignments": ()} | layers))
        assert (resolved.settings.data.padding, resolved.origin["data.padding"]) == (
            padding,
            origin,
        )


def test_flags_beat_everything_and_are_absent_when_none() -> None:
    flags = {"--seed": 5, "--device": None, "--data-dir": Path("d"), "--download": None}
    resolved = given(
        "training.seed=1", "training.device=cpu", environment={"HDKD_DATA__ROOT": "e"}, flags=flags
    )
    assert resolved.settings.training.seed == 5
    assert resolved.origin["training.seed"] == "--seed"
    assert resolved.settings.training.device == "cpu"
    assert resolved.origin["training.device"] == "--set"
    assert resolved.settings.data.root == "d"
    assert resolved.origin["data.root"] == "--data-dir"
    assert resolved.origin["data.download"] == "default"


def test_every_flag_is_a_setting() -> None:
    assert set(FLAGS.values()) <= set(leaves(Settings()))


def test_later_assignment_wins() -> None:
    assert given("training.seed=1", "training.seed=2").settings.training.seed == 2


@pytest.mark.parametrize("name", DATASETS)
def test_data_set_brings_its_defaults(name: str) -> None:
    resolved = given(f"data.name={name}")
    assert resolved.settings.data == DataSettings(name=name, **DATASETS[name].defaults)  # type: ignore[arg-type]
    for key in DATASETS[name].defaults:
        assert resolved.origin[f"data.{key}"] == "dataset"


@pytest.mark.parametrize("name", METHODS)
def test_method_stands_for_its_sections(name: str) -> None:
    resolved = given(f"method={name}")
    values = leaves(resolved.settings)
    for section, fields in METHODS[name].items():
        for field, value in fields.items():
            assert values[f"{section}.{field}"] == value
            assert resolved.origin[f"{section}.{field}"] == f"--set method={name}"
    untouched = set(values) - {f"{s}.{f}" for s, fields in METHODS[name].items() for f in fields}
    assert {resolved.origin[key] for key in untouched} == {"default"}


def test_explicit_key_beats_method_of_its_layer_whatever_the_order() -> None:
    for assignments in (
        ["weights.learned=false", "method=hdkd"],
        ["method=hdkd", "weights.learned=false"],
    ):
        resolved = given(*assignments)
        assert resolved.settings.weights.learned is False
        assert resolved.origin["weights.learned"] == "--set"
        assert resolved.origin["weights.init"] == "--set method=hdkd"


def test_method_of_a_higher_layer_beats_explicit_keys_below(tmp_path: Path) -> None:
    preset = toml(tmp_path / "p.toml", "method = 'dbt'\n[weights]\ninit = 'random'\n")
    assert given(preset=preset).settings.weights.init == "random"
    resolved = given(preset=preset, environment={"HDKD_METHOD": "joint"})
    assert resolved.settings.weights.init == "balanced"
    assert resolved.settings.objective.teachers == "none"
    assert resolved.origin["weights.init"] == "environment HDKD_METHOD method=joint"


def test_change_of_data_set_drops_what_described_the_other(tmp_path: Path) -> None:
    text = """[data]
    name = "cifar100"
    root = "/images"
    mean = [0.1, 0.1, 0.1]
    train_per_class = 100
    val_per_class = 7
    split_seed = 3
    workers = 1
    """
    resolved = given(
        "data.name=imagenet", "data.resize=300", preset=toml(tmp_path / "p.toml", text)
    )
    own = dict(DATASETS["imagenet"].defaults) | {"resize": 300}
    assert resolved.settings.data == DataSettings(
        name="imagenet", root="/images", split_seed=3, workers=1, **own
    )
    assert len(resolved.notes) == 3
    assert {note.split()[0] for note in resolved.notes} == {
        "data.mean",
        "data.train_per_class",
        "data.val_per_class",
    }
    assert all('data.name is now "imagenet" (--set)' in note for note in resolved.notes)


def test_same_data_set_again_drops_nothing(tmp_path: Path) -> None:
    preset = toml(tmp_path / "p.toml", "[data]\nname = 'cifar10'\ntrain_per_class = 9\n")
    resolved = given("data.name=cifar10", preset=preset)
    assert resolved.settings.data.train_per_class == 9
    assert resolved.notes == []


def test_unnamed_data_set_below_is_the_default_one(tmp_path: Path) -> None:
    preset = toml(tmp_path / "p.toml", "[data]\nflip = true\n")
    assert given("data.name=digits", preset=preset).settings.data.flip is True
    resolved = given("data.name=cifar10", "data.padding=1", preset=preset)
    assert [note.split()[0] for note in resolved.notes] == ["data.flip"]
    assert resolved.origin["data.flip"] == "dataset"


def test_change_of_network_keeps_only_what_every_network_has(tmp_path: Path) -> None:
    preset = toml(tmp_path / "p.toml", "[model]\nexits = 3\nbase = 2\ngrowth = 9\n")
    resolved = given("model.name=a.b:c", "model.options.width=64", preset=preset)
    assert resolved.settings.model == CustomModelSettings(
        name="a.b:c", exits=3, options={"width": 64}
    )
    assert [note.split()[0] for note in resolved.notes] == ["model.base", "model.growth"]

    mine = toml(tmp_path / "m.toml", "[model]\nname = 'a:b'\nexits = 4\n[model.options]\nx = 1\n")
    back = given("model.name=msdnet", preset=mine)
    assert back.settings.model == MSDNetSettings(exits=4)
    assert [note.split()[0] for note in back.notes] == ["model.options.x"]

    other = given("model.name=c:d", preset=mine)
    assert other.settings.model == CustomModelSettings(name="c:d", exits=4)


def test_options_of_a_network_merge_member_by_member(tmp_path: Path) -> None:
    preset = toml(
        tmp_path / "p.toml",
        "[model]\nname = 'a:b'\nexits = 2\n[model.options]\nx = 1\nnested = {y = [1, 2]}\n",
    )
    resolved = given(
        "model.options.x=2", preset=preset, environment={"HDKD_MODEL__OPTIONS__WORD": "none"}
    )
    assert isinstance(resolved.settings.model, CustomModelSettings)
    assert resolved.settings.model.options == {"x": 2, "nested": {"y": [1, 2]}, "word": "none"}
    assert resolved.origin["model.options.x"] == "--set"
    assert resolved.origin["model.options.nested"] == f"preset {preset}"


def test_config_file_may_be_a_copied_preset(tmp_path: Path) -> None:
    text = "[preset]\nsummary = 's'\nstatus = 'starter'\nsource = 'x'\n[training]\nepochs = 2\n"
    assert given(config=Path(toml(tmp_path / "c.toml", text))).settings.training.epochs == 2


def test_environment_of_the_process_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDKD_TRAINING__SEED", "8")
    monkeypatch.setenv("HDKD_ORACLE_DIR", "/anywhere")  # reserved, not a setting
    monkeypatch.setenv("HDK_TRAINING__SEED", "9")
    assert resolve().settings.training.seed == 8


def test_resolve_over_a_run_changes_only_what_is_asked() -> None:
    run = given("data.name=cifar10", "method=dbt", "data.val_per_class=none").settings
    resolved = resolve_over(run, assignments=["training.max_steps=9"], flags={"--device": "cpu"})
    assert resolved.settings == run.model_copy(
        update={
            "training": run.training.model_copy(update={"max_steps": 9, "device": "cpu"}),
        }
    )
    changed = {key: origin for key, origin in resolved.origin.items() if origin != "run"}
    assert changed == {"training.max_steps": "--set", "training.device": "--device"}


def test_a_pretrained_backbone_brings_its_own_transform() -> None:
    backbone = ("data.name=cifar100", "model.name=torchvision:efficientnet_b0")
    assert given(*backbone).settings.data.image_size == 32
    resolved = given(*backbone, "model.pretrained=weights.pth", "data.std=1,1,1")
    data = resolved.settings.data
    assert (data.image_size, data.resize, data.interpolation) == (224, 256, "bicubic")
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (1, 1, 1))
    assert resolved.origin["data.mean"] == "pretrained torchvision:efficientnet_b0"
    assert resolved.origin["data.std"] == "--set"
    assert resolved.origin["data.flip"] == "dataset"


def test_with_another_image_size_a_pretrained_backbone_crops_nothing() -> None:
    resolved = given(
        "data.name=cifar100", "model.name=torchvision:resnet18", "model.pretrained=download",
        "data.image_size=64",
    )  # fmt: skip
    assert (resolved.settings.data.image_size, resolved.settings.data.resize) == (64, None)


def test_a_change_of_network_keeps_what_every_network_can_be() -> None:
    resolved = resolve(
        "digits", environment={}, assignments=["model.name=ranet", "training.seed=1"]
    )
    assert not [note for note in resolved.notes if "static" in note]
    static = resolve("digits", environment={}, assignments=["method=static", "model.name=ranet"])
    assert static.settings.model.static


@pytest.mark.parametrize("exits", ["layer1,layer3", '["layer1", "layer3"]'])
def test_exits_may_be_names_of_blocks(exits: str) -> None:
    resolved = given("model.name=torchvision:resnet18", f"model.exits={exits}")
    assert leaves(resolved.settings)["model.exits"] == ("layer1", "layer3")
    assert from_toml(to_toml(resolved.settings)) == resolved.settings


@pytest.mark.parametrize(
    ("size", "stem", "scales"),
    [
        (8, "cifar", 1),
        (16, "cifar", 2),
        (20, "cifar", 3),
        (32, "cifar", 3),
        (48, "cifar", 3),
        (64, "cifar", 4),
        (96, "cifar", 5),
        (224, "cifar", 6),
        (224, "imagenet", 4),
    ],
)
def test_an_msdnet_has_the_scales_that_its_images_need(size: int, stem: str, scales: int) -> None:
    resolved = given(f"data.image_size={size}", f"model.stem={stem}", "data.resize=none")
    model = resolved.settings.model
    assert isinstance(model, MSDNetSettings)
    assert model.growth_factors == model.bottleneck_factors == (1, 2, 4, 4, 4, 4)[:scales]
    said = "default" if scales == 3 else f"data.image_size = {size}"
    assert resolved.origin["model.growth_factors"] == said
    build_model(model, num_classes=10, image_size=size)


def test_scales_that_are_given_stay() -> None:
    resolved = given(
        "data.image_size=64", "model.growth_factors=1,2,2,2,2", "model.bottleneck_factors=1,1,1,1,1"
    )
    assert isinstance(resolved.settings.model, MSDNetSettings)
    assert resolved.settings.model.growth_factors == (1, 2, 2, 2, 2)
