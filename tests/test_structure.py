"""The house keeps its order: imports go one way, `method` knows tensors alone, nothing prints."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hdkd_cli"
FILES = sorted(PACKAGE.rglob("*.py"))

# A folder may import from those on its right, and from its own line; never from the left.
LAYERS = [
    {"app", "__main__"},
    {"commands"},
    {"ui"},
    {"study"},
    {"library", "testing"},
    {"training", "inference"},
    {"evaluation"},
    {"runs"},
    {"method", "models", "data"},
    {"settings", "devices", "files", "reading"},
    {"records"},
    {"errors", "choices", "wording"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def part_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def test_all_files_are_seen():
    assert len(FILES) > 50
    assert {part_of(path) for path in FILES} - {"__init__"} <= LEVEL.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    part = part_of(path)
    if part in {"__init__", "__main__"}:
        return  # the public API reaches everything, lazily; the other starts the app
    inside = {name for name in imports(ast.parse(path.read_text())) if name.startswith("hdkd_cli.")}
    targets = {name.split(".")[1] for name in inside} & LEVEL.keys()
    against = {t for t in targets if t != part and LEVEL[t] < LEVEL[part]}
    assert not against


def test_the_method_could_be_lifted_out():
    for path in FILES:
        if part_of(path) == "method":
            outside = {n.split(".")[0] for n in imports(ast.parse(path.read_text()))} - {"hdkd_cli"}
            assert outside <= {
                "__future__", "abc", "collections", "contextlib", "dataclasses", "functools",
                "math", "random", "torch", "typing", "warnings",
            }  # fmt: skip
            inside = {n for n in imports(ast.parse(path.read_text())) if n.startswith("hdkd_cli")}
            assert all(n.startswith(("hdkd_cli.method", "hdkd_cli.choices")) for n in inside)


def test_evaluation_knows_no_torch():
    """And neither does what it stands on: verbs that only read scores start in a second."""
    for path in FILES:
        if part_of(path) == "evaluation":
            names = imports(ast.parse(path.read_text()))
            assert not {name for name in names if name.split(".")[0] in {"torch", "torchvision"}}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_below_the_commands_prints(path):
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    if part_of(path) not in {"commands", "app"}:
        assert "print" not in calls


def test_no_pickle_is_opened():
    """Exceptions: torchvision's checksum-verified CIFAR files, and the one place that reads foreign
    state dicts, which lets torch build nothing but tensors and plain containers."""
    for path in FILES:
        tree = ast.parse(path.read_text())
        loads = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
        ]
        foreign = path == PACKAGE / "models" / "foreign.py"
        assert len(loads) == foreign, path
        for call in loads:
            assert "weights_only=True" in map(ast.unparse, call.keywords), path
        allowed = {"pickle", "pickle.UnpicklingError"} if foreign else set()
        assert not {"pickle", "torch.load", "joblib"} & imports(tree) - allowed, path
        assert path.read_text().count("torch.load(") == len(loads), path
        assert "pickle.load" not in path.read_text(), path


def literals(path: Path) -> list[frozenset[str]]:
    """The lists of names in a file: Literal["a", "b"]."""
    return [
        frozenset(name.value for name in node.slice.elts if isinstance(name, ast.Constant))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Literal"
        and isinstance(node.slice, ast.Tuple)
    ]


def test_every_choice_is_written_once():
    written = [(names, path.name) for path in FILES for names in literals(path)]
    choices = {names for names, file in written if file == "choices.py"}
    assert len(choices) > 20
    for names in choices:
        assert [file for others, file in written if others == names] == ["choices.py"], names


def test_choices_import_typing_alone():
    names = imports(ast.parse((PACKAGE / "choices.py").read_text()))
    assert {name.split(".")[0] for name in names} == {"__future__", "typing"}
