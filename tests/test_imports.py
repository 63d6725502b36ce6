import ast
import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import embedlab

HOUSE = Path(embedlab.__file__).parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
IMPORTS = (ast.Import, ast.ImportFrom)
HOLDS = (ast.stmt, ast.excepthandler, ast.match_case)  # what an import may stand in
ARROW = (
    *("language", "token_ids", "parsed_prompt", "composition", "prompt", "select", "selector", "scheduler_options"),
    *("limits", "clip"),
    *("models", "engines", "structure", "detector", "embeddings", "operators", "encoder", "windows", "weighting"),
    *("schedule", "attention", "guidance", "sampler", "cell", "condition", "validate", "samples"),
    *(
        "starting",
        "inverting",
        "rendering",
        "stepping",
        "runtime",
        "images",
        "metrics",
        "explanation",
        "export",
        "learning",
    ),
)
# a room imports from itself and from the rooms before it; those of one line know nothing of each other
ROOMS = (
    ("errors", "arguments", "checks", "files", "clean", "readers", "memo", "timing", "transfer", "tables", "display"),
    ARROW,
    ("tracker",),
    ("sweep",),
    ("workers", "view", "play"),
    ("cli",),
    ("notebook",),
    ("pretrain", "__main__"),
)
LEVEL = {room: n for n, rooms in enumerate(ROOMS) for room in rooms}
SIBLINGS = {(a, b) for a in ROOMS[4] for b in ROOMS[4] if a != b}


def test_every_public_name_is_there_and_sorted():
    assert embedlab.__all__ == sorted(embedlab.__all__)
    for name in embedlab.__all__:
        assert getattr(embedlab, name).__doc__, name


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(AttributeError, match="embedlab has no 'Replacement'; its public names are .*Replace"):
        embedlab.Replacement  # noqa: B018


def test_editors_read_the_same_names_and_homes_as_python_finds():
    (block,) = (node for node in ast.parse(Path(embedlab.__file__).read_text()).body if is_for_types(node))
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom), "the block under TYPE_CHECKING holds imports alone"
        for alias in node.names:
            assert alias.asname == alias.name, f"`{alias.name} as {alias.name}` is what makes a name public"
            seen[alias.name] = str(node.module).removeprefix("embedlab.")
    assert seen == embedlab._HOME


def test_no_public_name_is_that_of_a_file():
    files = {path.stem for path in HOUSE.iterdir()}
    assert not files & set(embedlab.__all__), "importing embedlab/NAME.py would put the module where embedlab.NAME is"


@pytest.mark.parametrize(("old", "new"), embedlab.OLD.items())
def test_an_old_spelling_works_and_names_todays(old, new):
    with pytest.warns(DeprecationWarning, match=rf"^embedlab\.{old} is now embedlab\.{new}\.$") as seen:
        assert getattr(embedlab, old) is getattr(embedlab, new)
    assert seen[0].filename == __file__, "the line that uses it is the one that is shown"
    assert not set(embedlab.OLD) & set(embedlab.__all__)
    assert set(embedlab.OLD.values()) <= set(embedlab.__all__)


def test_importing_the_library_brings_neither_hydra_nor_wandb_nor_torch():
    fast = (
        "import sys, embedlab, embedlab.cli.main\n"
        "assert 'torch' not in sys.modules and 'wandb' not in sys.modules, 'the command line must answer fast'"
    )
    whole = (
        "import sys, embedlab\n"
        "embedlab.Replace, embedlab.render, embedlab.Sampler\n"
        "assert 'wandb' not in sys.modules and 'hydra' not in sys.modules"
    )
    for code in (fast, whole):
        subprocess.run([sys.executable, "-c", code], check=True)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_of(path: Path, house: Path = HOUSE) -> set[str]:
    """The files of the house that a file imports, at any depth, as dotted names below `embedlab`."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if is_for_types(node):
            continue
        nodes += [inner for inner in ast.iter_child_nodes(node) if isinstance(inner, HOLDS)]
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: name the whole of it"
            for alias in node.names:
                inner = house / "/".join(node.module.split(".")[1:]) / alias.name
                found.add(f"{node.module}.{alias.name}" if is_file(inner) else node.module)
    return {name.removeprefix("embedlab.") for name in found if name.startswith("embedlab.")}


def is_file(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def graph(house: Path = HOUSE) -> dict[str, set[str]]:
    """Every file of the house, and what it imports of the house."""
    files = {path: ".".join(path.relative_to(house).with_suffix("").parts) for path in house.rglob("*.py")}
    names = {path: name.removesuffix(".__init__") for path, name in files.items() if name != "__init__"}
    return {name: imports_of(path, house) - {name} for path, name in names.items()}


def offences(found: dict[str, set[str]]) -> list[str]:
    """What breaks the rule, a line each: imports that run back, between siblings, in a circle."""
    pairs = [(name, other) for name in sorted(found) for other in sorted(found[name])]
    rooms = [(name, other, name.split(".")[0], other.split(".")[0]) for name, other in pairs]
    told = [f"{name} → {other}" for name, other, a, b in rooms if LEVEL[b] > LEVEL[a] or (a, b) in SIBLINGS]
    left = {name: set(others) for name, others in found.items()}
    while True:
        try:
            tuple(TopologicalSorter(left).static_order())
        except CycleError as error:
            circle = error.args[1]
            told.append(" ← ".join(circle))
            left[circle[1]].discard(circle[0])  # one step of it is left out, and the others are looked for
        else:
            return told


def late(house: Path = HOUSE) -> list[str]:
    """Imports of the house's own files inside functions, a line each; the command line has some, to answer at once."""
    found = []
    for path in sorted(house.rglob("*.py")):
        name = ".".join(path.relative_to(house).with_suffix("").parts)
        if name.startswith("cli."):
            continue
        functions = [
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, FUNCTIONS)
        ]
        inside = [node for function in functions for node in ast.walk(function)]
        for line, node in {ast.unparse(node): node for node in inside if isinstance(node, IMPORTS)}.items():
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found += [f"{name}: {line}" for module in modules if module.split(".")[0] == "embedlab"]
    return found


def test_files_of_the_house_are_imported_late_by_the_command_line_alone():
    assert not late()


def test_a_file_imports_only_from_rooms_before_it_however_late():
    assert not offences(graph())


def test_the_rule_sees_offenders(tmp_path):
    house = Path(shutil.copytree(HOUSE, tmp_path / "embedlab", ignore=shutil.ignore_patterns("weights", "*.pyc")))
    clean = set(offences(graph(house)))
    (house / "cell.py").write_text(
        "class A:\n    def late(self):\n        from embedlab.clip import Tower\n        import torch\n"
    )
    (house / "tracker" / "disk.py").write_text("async def late():\n    if True:\n        import embedlab.files, json\n")
    (house / "cli" / "main.py").write_text("def late():\n    from embedlab.cell import Cell\n")
    assert late(house) == ["cell: from embedlab.clip import Tower", "tracker.disk: import embedlab.files, json"]
    (house / "prompt.py").write_text("def late():\n    from embedlab.cli.main import main\n")
    (house / "view" / "replay.py").write_text("if True:\n    import embedlab.workers\n")
    (house / "clean.py").write_text("from embedlab import files\n")
    seen = set(offences(graph(house))) - clean
    assert {"prompt → cli.main", "view.replay → workers"} <= seen
    assert any("files" in line and "clean" in line and "←" in line for line in seen), "a circle"
