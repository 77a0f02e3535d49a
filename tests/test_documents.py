"""What documents tell people to type exists, the facts they state are the code's, links lead on."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import build_reference
import claims
import performance
from test_structure import LAYERS

import hdkd_cli
from hdkd_cli import app
from hdkd_cli.method.terms import Terms
from hdkd_cli.settings.methods import METHODS
from hdkd_cli.settings.networks import settings_of_network
from hdkd_cli.settings.schema import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
}
VERBS = {c.name for c in app.app.registered_commands} | {"presets", "settings"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def hdkd_calls() -> set[tuple[str, ...]]:
    calls = set()
    for text in PAGES.values():
        for line in "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines():
            for part in re.split(r"[|;&]|\$\(|\)", line.split("#")[0]):
                words = shlex.split(re.sub(r'"|\bdo\b', "", part))
                if words[:1] == ["hdkd"]:
                    calls.add(tuple(words[1:]))
    return calls


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """Verb → its help page, all options on it."""
    return {page.split("\n")[0]: page for page in PAGES["docs/reference/cli.md"].split("## hdkd ")}


def test_there_are_commands_to_check():
    assert len(hdkd_calls()) >= 40


@pytest.mark.parametrize("call", sorted(hdkd_calls()), ids=" ".join)
def test_every_command_in_the_documents_exists(call, helps):
    verb = {"calibrate": "calibrate-thresholds"}.get(call[0], call[0])
    page = helps.get(verb) or helps[" ".join(call[:2])]
    for option in (word for word in call if word.startswith("-") and len(word) > 1):
        assert re.search(rf"`[^`]*{re.escape(option)}[`,]", page), option


def test_every_verb_has_its_reference(helps):
    for verb in VERBS - {"calibrate"}:
        assert any(page.startswith(verb) for page in helps), verb


def test_settings_that_are_assigned_exist():
    networks = [settings_of_network(name) for name in ("msdnet", "ranet", "timm:any", "own:net")]
    known = {
        f"{section}.{key}"
        for section, field in Settings.model_fields.items()
        for kind in (networks if section == "model" else [field.annotation])
        for key in kind.model_fields
    }
    sections = "|".join(Settings.model_fields)
    written = "\n".join(text for page, text in PAGES.items() if "reference/" not in page)
    for name in re.findall(rf"(?:--set |`)((?:{sections})\.\w+)", written):
        assert name in known, name


def test_every_method_is_explained():
    for method in METHODS:
        assert f"| `{method}`" in PAGES["docs/concepts/method.md"]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for text in PAGES.values():
        for target in re.findall(r"^make ([\w-]+)", "\n".join(blocks(text, "sh")), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_readme_is_short():
    assert len(PAGES["README.md"].encode()) <= 6 * 1024


def anchors(text: str) -> set[str]:
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_page_is_in_the_site():
    index = (ROOT / "docs" / "index.rst").read_text()
    for page in PAGES.keys() - {"README.md", "CONTRIBUTING.md", "docs/README.md"}:
        assert f"   {page.removeprefix('docs/').removesuffix('.md')}\n" in index, page


def test_generated_pages_are_those_of_the_code():
    for path, text in build_reference.pages().items():
        assert path.read_text() == text, f"{path.name} is stale: run make reference"


def test_what_descriptions_refer_to_is_there():
    """Pages that messages and descriptions name are shipped with the package."""
    shipped = (ROOT / "pyproject.toml").read_text()
    named = set()
    for path in (ROOT / "hdkd_cli").rglob("*.py"):
        text = path.read_text()
        for page, section in re.findall(r"(docs/[\w/-]+\.md)(?:,? section (\d))?", text):
            named.add(page)
            assert not section or re.search(rf"^## {section}\.", PAGES[page], re.MULTILINE), path
    assert "docs/concepts/method.md" in named
    for page in named:
        folder = page if page == "docs/log.md" else page.rpartition("/")[0]
        assert f'"{folder}" = "hdkd_cli/{folder}"' in shipped, page


def test_the_layers_are_those_of_the_code():
    page = PAGES["docs/architecture.md"]
    table = page[page.index("## Layers") : page.index("## Letters")]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == LAYERS


def example(page: str, name: str) -> str:
    """The Python file that a guide shows."""
    shown = blocks(PAGES[page], "python")
    (found,) = [block for block in shown if block.startswith(f"# {name}.py")]
    return found


@pytest.fixture
def guide_module(tmp_path, monkeypatch):
    def written(page: str, name: str):
        (tmp_path / f"{name}.py").write_text(example(page, name))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return written


def test_the_data_set_of_the_guide_can_be_read(guide_module):
    source = guide_module("docs/guide/your-images.md", "mydata").stripes(None, images_per_class=4)
    assert source.classes == ("horizontal", "vertical")
    assert [len(source.parts[part]) for part in ("train", "test")] == [8, 4]
    assert source.image(0).size == (32, 32)


def test_the_loss_of_the_guide_can_be_weighted(guide_module):
    group = guide_module("docs/extending.md", "mine").group(num_exits=3)
    terms = Terms(3, "later", 3.0, [group])
    assert terms.names[-2:] == ("agree[2->1]", "agree[3->2]")
    alike_KBC = torch.randn(1, 4, 5).expand(3, 4, 5)
    assert terms(alike_KBC, torch.zeros(4, dtype=torch.int64))[-2:].tolist() == [0, 0]


def test_python_in_the_documents_uses_public_names():
    used = {
        name
        for text in PAGES.values()
        for block in blocks(text, "python")
        for name in re.findall(r"\bhdkd_cli\.(\w+)\(", block)
    }
    assert {"train", "load"} <= used <= set(hdkd_cli.__all__)


def test_performance_is_made_from_the_committed_results():
    made = performance.sections(claims.records())
    assert set(made) == {"docs/performance.md"}
    for name, sections in made.items():
        assert performance.replaced(PAGES[name], sections) == PAGES[name], (
            "run python benchmarks/performance.py"
        )


def test_memory_of_a_rank_is_the_counted_one():
    *_, table = performance.sections(claims.records())["docs/performance.md"]
    record = json.loads((ROOT / "benchmarks/results/memory.json").read_text())
    for row, line in zip(record["rows"], table.splitlines()[2:], strict=True):
        name, p, a, rank, checkpoint = line.strip("| ").split(" | ")
        assert name.startswith(f"`{row['net']}`")
        assert float(rank) * 1e3 == pytest.approx(4 * float(p) + 64 * float(a), abs=12)
        assert float(checkpoint) == pytest.approx(2 * float(p), abs=1)
        assert float(p) == pytest.approx(row["bytes"]["parameters"] / 1e6, abs=0.06)


def test_scripts_and_records_named_in_documents_exist():
    named = set(re.findall(r"benchmarks/[\w/-]+\.(?:py|json|md)", "\n".join(PAGES.values())))
    assert len(named) >= 4
    assert all((ROOT / name).is_file() for name in named)
