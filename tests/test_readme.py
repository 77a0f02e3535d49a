"""What the README tells people to type exists, and the facts it states are the code's."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import claims
import readme

from hdkd_cli import app
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.schema import METHODS, Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
VERBS = {c.name for c in app.app.registered_commands} | {"presets", "settings"}


def hdkd_calls() -> list[list[str]]:
    calls = []
    for line in SHELL.splitlines():
        for part in re.split(r"[|;&]|\$\(|\)", line.split("#")[0]):
            words = shlex.split(part.replace('"', ""))
            if words[:1] == ["hdkd"]:
                calls.append(words[1:])
    return calls


def test_there_are_commands_to_check():
    assert len(hdkd_calls()) >= 8


@pytest.mark.parametrize("call", hdkd_calls(), ids=" ".join)
def test_every_command_in_the_readme_exists(call, capsys):
    assert call[0] in VERBS
    assert app.run([call[0], "--help"]) == 0
    text = capsys.readouterr().out
    for option in (word for word in call if word.startswith("-") and len(word) > 1):
        assert re.search(rf"{option}\b", text), option


def test_every_verb_is_in_the_readme():
    for verb in VERBS - {"calibrate"}:
        assert f"hdkd {verb}" in README


def test_every_setting_named_in_the_readme_exists():
    names = leaves(Settings())
    sections = "|".join(Settings.model_fields)
    for name in re.findall(rf"`(?:--set )?((?:{sections})\.\w+)", README):
        assert name in names, name
    for name in re.findall(rf"--set ((?:{sections})\.[\w]+)=", SHELL):
        assert name in names, name


def test_every_method_is_in_the_readme():
    for method in METHODS:
        assert f"| `{method}`" in README


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make ([\w-]+)", SHELL, re.MULTILINE))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_performance_is_made_from_the_committed_results():
    made = readme.sections(claims.records())
    assert set(made) == {"docs/performance.md", "README.md"}
    for name, sections in made.items():
        text = (ROOT / name).read_text()
        assert readme.replaced(text, sections) == text, "run python benchmarks/readme.py"


def test_memory_of_a_rank_is_the_counted_one():
    *_, table = readme.sections(claims.records())["docs/performance.md"]
    record = json.loads((ROOT / "benchmarks/results/memory.json").read_text())
    for row, line in zip(record["rows"], table.splitlines()[2:], strict=True):
        name, p, a, rank, checkpoint = line.strip("| ").split(" | ")
        assert name.startswith(f"`{row['net']}`")
        assert float(rank) * 1e3 == pytest.approx(4 * float(p) + 64 * float(a), abs=12)
        assert float(checkpoint) == pytest.approx(2 * float(p), abs=1)
        assert float(p) == pytest.approx(row["bytes"]["parameters"] / 1e6, abs=0.06)


def test_scripts_named_in_documents_exist():
    documents = [README, *(path.read_text() for path in (ROOT / "docs").rglob("*.md"))]
    named = set(re.findall(r"benchmarks/\w+\.py", "\n".join(documents)))
    assert len(named) >= 4
    assert all((ROOT / name).is_file() for name in named)
