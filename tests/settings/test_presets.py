"""Presets: found, read, copied."""

from pathlib import Path

import pytest

from hdkd_cli import files
from hdkd_cli.errors import PresetError, UsageError
from hdkd_cli.settings import presets
from hdkd_cli.settings.layers import resolve

IN_REPOSITORY = sorted((Path(__file__).parents[2] / "presets").rglob("*.toml"))
HEAD = "[preset]\nsummary = 's'\nstatus = 'starter'\nsource = 'x'\n"


def test_all_are_found() -> None:
    assert len(presets.names()) == len(IN_REPOSITORY) >= 2
    assert presets.DEFAULT in presets.names()
    assert sorted(map(presets.find, presets.names())) == IN_REPOSITORY


@pytest.mark.parametrize("path", IN_REPOSITORY, ids=lambda path: path.stem)
def test_each_is_described_and_resolves_silently(path: Path) -> None:
    preset = presets.read(path.stem)
    assert preset.path == path
    assert preset.info is not None
    assert preset.info.summary
    assert preset.info.source
    assert preset.info.expected or preset.info.status == "starter"
    resolved = resolve(path.stem, environment={})
    assert resolved.notes == []
    assert f"preset {path.stem}" in resolved.origin.values()


def test_a_file_is_a_preset_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + "[preset.expected]\ntop1_pct = 5.0\n[training]\nepochs = 4\n")
    preset = presets.read(str(path))
    assert preset.info is not None
    assert preset.info.expected == {"top1_pct": 5.0}
    assert preset.tables == {"training": {"epochs": 4}}
    path.write_text("\ufeff[training]\nepochs = 4\n", encoding="utf-8")  # as some editors save it
    assert presets.read(str(path)).info is None


@pytest.mark.parametrize("name", ["no/such", "nosuch.toml"])
def test_missing_file(name: str) -> None:
    with pytest.raises(PresetError, match=rf"preset {name}: no such file"):
        presets.read(name)


def test_wrong_description(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[preset]\nstatus = 'tested'\nsource = 3\nauthor = 'me'\n")
    with pytest.raises(PresetError) as caught:
        presets.read(str(path))
    for part in (str(path), "preset.summary", "preset.status", "preset.source", "preset.author"):
        assert part in str(caught.value)
    path.write_text("preset = 3\n")
    with pytest.raises(PresetError, match="preset"):
        presets.read(str(path))
    path.write_text("[preset\n")
    with pytest.raises(PresetError, match=r"not valid TOML.*line 1"):
        presets.read(str(path))


def test_copy_never_replaces_by_accident(tmp_path: Path) -> None:
    digits = presets.find("digits").read_bytes()
    target = presets.copy("digits", tmp_path / "new" / "mine.toml")
    assert target == tmp_path / "new" / "mine.toml"
    assert target.read_bytes() == digits
    target.write_text("edited")
    with pytest.raises(UsageError, match=r"mine.toml: is there already\nhint: --force replaces it"):
        presets.copy("digits", target)
    assert target.read_text() == "edited"
    assert presets.copy("digits", target, force=True).read_bytes() == digits
    assert presets.copy("digits", tmp_path) == tmp_path / "digits.toml"


def test_presets_inside_the_package_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "hdkd_cli"
    package.mkdir()
    (tmp_path / "presets").mkdir()
    monkeypatch.setattr(files, "__file__", str(package / "files.py"))
    assert presets.folder() == tmp_path / "presets"
    (package / "presets" / "large").mkdir(parents=True)
    (package / "presets" / "large" / "net.toml").write_text(HEAD)
    assert presets.folder() == package / "presets"
    assert presets.names() == ["large/net"]
    assert presets.read("large/net").path == package / "presets" / "large" / "net.toml"
