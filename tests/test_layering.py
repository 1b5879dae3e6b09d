"""Who may import whom (README, layout), and what ``import jaxrec`` must leave alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxrec"
MODULES = sorted(PACKAGE.rglob("*.py"))
LAZY_LIBRARIES = ("grain", "orbax", "polars")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """Modules that a file imports when it runs; ``lazy`` counts those inside functions too."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if is_type_checking(node):
            return
        if not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found.update(
                f"{node.module}.{alias.name}" for alias in node.names if node.module.startswith("jaxrec")
            )
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def within(name: str, *rooms: str) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def offences(room: str, forbidden: tuple[str, ...], *, lazy: bool = True) -> list[str]:
    """``module -> what it imports`` of a room's modules that import something forbidden."""
    return [
        f"{module_name(path)} -> {name}"
        for path in MODULES
        if within(module_name(path), room)
        for name in sorted(imports(path, lazy=lazy))
        if within(name, *forbidden)
    ]


ABOVE = (
    "jaxrec.config",
    "jaxrec.presets",
    "jaxrec.run",
    "jaxrec.fitting",
    "jaxrec.artifact",
    "jaxrec.evaluation",
)


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("jaxrec.data", ("jaxrec.nn", "jaxrec.models", "jaxrec.train", *ABOVE)),
        ("jaxrec.train", ("jaxrec.nn", "jaxrec.models", *ABOVE)),
        ("jaxrec.models", ("jaxrec.train", "jaxrec.data", *ABOVE)),
        ("jaxrec.nn", ("jaxrec.models", "jaxrec.train", "jaxrec.data", "jaxrec.losses", "optax", *ABOVE)),
        *(
            (f"jaxrec.{low}", ("jaxrec.nn", "jaxrec.models", "jaxrec.train", "jaxrec.data", *ABOVE))
            for low in (
                "typing",
                "batch",
                "recommender",
                "devices",
                "losses",
                "metrics",
                "lists.recommending",
                "lists.scoring",
                "lists.similar",
                "lists.topk",
            )
        ),
        ("jaxrec.lists", ("jaxrec.nn", "jaxrec.models", "jaxrec.train", *ABOVE)),
    ],
)
def test_rooms_import_only_what_lies_below(room, forbidden):
    assert any(within(module_name(path), room) for path in MODULES)
    assert offences(room, forbidden) == []


def test_diffusion_is_mathematics_over_jax_alone():
    allowed = ("jaxrec.typing", "jaxrec.diffusion", "jax", "numpy", *sys.stdlib_module_names)
    found = {
        name
        for path in MODULES
        if within(module_name(path), "jaxrec.diffusion")
        for name in imports(path)
        if not within(name, *allowed)
    }
    assert found == set()


@pytest.mark.parametrize(
    ("library", "homes", "lazy_homes"),
    [
        ("polars", ("jaxrec.data",), ()),
        ("grain", ("jaxrec.data.pipeline",), ("jaxrec.train.checkpoint",)),
        ("orbax", ("jaxrec.train.checkpoint",), ()),
    ],
)
def test_a_library_is_used_in_its_home_only(library, homes, lazy_homes):
    for path in MODULES:
        name = module_name(path)
        if within(name, *homes):
            continue
        lazy = not within(name, *lazy_homes)
        assert not [found for found in imports(path, lazy=lazy) if within(found, library)], name


def test_the_library_does_not_print():
    for path in MODULES:
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        ]
        assert not [call for call in calls if ast.unparse(call.func) == "print"], path


@pytest.mark.parametrize("name", ["jaxrec", "jaxrec.data", "jaxrec.config"])
def test_importing_is_light(name):
    """Nor does it touch a device: that is left to the first computation."""
    code = (
        f"import sys, {name}; from jax._src import xla_bridge;"
        f" print([m for m in {LAZY_LIBRARIES!r} if m in sys.modules], xla_bridge.backends_are_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"
