"""The house keeps its shape: imports run down the list of rooms, and light rooms stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sgdlab"

# What each room may import besides `arguments`, which every room may; the order is that of the list
# of rooms in docs/design.md.
ROOMS = {
    "cli": {"report", "experiment", "training", "tasks", "workers", "rules", "precision"}
    | {"timelines", "theory", "statistics", "plots", "files"},
    "report": {"experiment", "timelines", "theory", "statistics", "plots", "files"},
    "experiment": {"training", "tasks", "workers", "rules", "precision", "timelines", "theory"}
    | {"statistics", "plots", "files"},
    "training": {"tasks", "workers", "rules", "precision", "timelines", "theory", "statistics"}
    | {"plots", "files"},
    "tasks": {"statistics", "files"},
    "workers": set(),
    "rules": set(),
    "precision": set(),
    "timelines": {"theory", "plots", "files"},
    "theory": set(),
    "statistics": set(),
    "plots": set(),
    "files": set(),
    "arguments": set(),
}
NUMPY_ONLY = ("timelines", "theory", "statistics", "plots", "files", "arguments")
# Within `experiment` a room may import those behind it, in the order of docs/design.md.
ROOMS_OF_EXPERIMENT = [
    *("terminal", "studies", "outlets", "running", "folders", "config", "claims", "reading"),
    "errors",
]


def room_of(path, house=PACKAGE):
    relative = path.relative_to(house)
    return relative.parts[0].removesuffix(".py")


def is_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(path, *, types=True):
    """Full names of the modules that a file imports, those for type checkers among them."""
    tree = ast.parse(path.read_text())
    if not types:
        tree.body = [node for node in tree.body if not is_for_types(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module
            if node.module == "sgdlab":
                yield from (f"sgdlab.{alias.name}" for alias in node.names)


def files():
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_the_list_of_rooms(path):
    room = room_of(path)
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("sgdlab.")}
    assert rooms - {room, "arguments"} <= ROOMS[room]


def files_of_experiment():
    inside = (path for path in files() if room_of(path) == "experiment")
    return [path for path in inside if path != PACKAGE / "experiment" / "__init__.py"]


@pytest.mark.parametrize(
    "path", files_of_experiment(), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_within_experiment_imports_run_down_too(path):
    at = ROOMS_OF_EXPERIMENT.index(room_of(path, PACKAGE / "experiment"))
    names = (name.split(".") for name in imported(path, types=False))
    rooms = {"".join(name[2:3]) for name in names if name[:2] == ["sgdlab", "experiment"]}
    assert rooms <= set(ROOMS_OF_EXPERIMENT[at:])


@pytest.mark.parametrize(
    "path",
    [path for path in files() if room_of(path) in NUMPY_ONLY],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_light_rooms_know_no_jax(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"jax", "optax", "flax", "chex"}


def test_every_room_is_in_the_list():
    found = {room_of(path) for path in files()}
    assert found == set(ROOMS)
    inside = {room_of(path, PACKAGE / "experiment") for path in files_of_experiment()}
    assert inside == set(ROOMS_OF_EXPERIMENT)


def test_an_arrow_upward_would_be_seen(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from sgdlab.training import replay\n    return replay\n")
    assert "sgdlab.training" in set(imported(bad))


def test_importing_every_room_imports_no_jax():
    rooms = ", ".join(f"sgdlab.{room}" for room in ROOMS if room != "cli")
    heavy = {"jax", "sklearn", "matplotlib.pyplot"}
    code = f"import sys, {rooms}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
