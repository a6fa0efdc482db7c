"""Who imports whom: the arrows between the rooms of the package, lazy imports counted."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hf_tasks"
VALUES = {"errors", "contract", "artifacts", "files"}
"""What anyone may look into: values, and how files are written; they import no other room."""

MAY_IMPORT = {
    "__init__": {"errors", "recipe", "workflow", "tasks"},
    "__main__": {"cli"},
    "cli": {"errors", "workflow", "recipe", "data"},
    "workflow": VALUES | {"recipe", "registry", "data", "metrics", "callbacks", "report", "export", "hub"},
    "recipe": {"errors", "files", "registry"},
    "registry": {"contract", "tasks"},
    "tasks": {"errors", "contract", "files", "data", "images", "metrics"},
    "data": {"errors", "contract", "files", "hub"},
    "images": {"errors", "contract", "files", "hub"},
    "hub": {"errors", "contract", "files"},
    "metrics": {"errors", "contract"},
    "callbacks": {"errors", "contract", "files"},
    "report": {"errors", "contract", "files"},
    "export": {"errors", "contract", "files"},
    "contract": set(),
    "artifacts": {"errors", "files"},
    "files": set(),
    "errors": set(),
}
ONLY_THESE_HOLD_A_RECIPE = {"__init__", "cli", "workflow", "recipe"}


@cache
def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports(path: Path) -> list[str]:
    """Modules of ours that a file imports anywhere, at its top or inside a function."""
    found = []
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_tasks"):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append(whole if whole in modules() else str(node.module))
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("hf_tasks")]
    return found


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_the_rooms_that_its_own_may(module):
    own = room(module)

    foreign = {room(name) for name in imports(modules()[module])} - {own}

    assert foreign <= MAY_IMPORT[own], f"{module} imports {sorted(foreign - MAY_IMPORT[own])}"


def test_no_task_imports_another():
    for module, path in modules().items():
        parts = module.split(".")
        if parts[1:2] == ["tasks"] and len(parts) > 2:
            others = {name.split(".")[2] for name in imports(path) if name.startswith("hf_tasks.tasks.")}
            assert others <= {parts[2]}, module


def test_no_modules_import_each_other_in_a_circle():
    arrows = {module: set(imports(path)) - {module} for module, path in modules().items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for name in arrows.get(module, ()):
                visit(name, (*trail, module))
            done.add(module)

    for module in arrows:
        visit(module, ())


def test_a_whole_recipe_is_held_by_few():
    for module, path in modules().items():
        if room(module) not in ONLY_THESE_HOLD_A_RECIPE:
            assert "Recipe" not in {
                alias.name for node in nodes(path) if isinstance(node, ast.ImportFrom) for alias in node.names
            }, module


def test_there_is_no_drawer_for_odds_and_ends():
    names = {path.stem for path in PACKAGE.rglob("*.py")}

    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_nothing_that_runs_foreign_code_is_called():
    forbidden = {"yaml.load", "yaml.unsafe_load", "pickle.load", "pickle.loads", "eval", "exec", "os.system"}
    for module, path in modules().items():
        for node in nodes(path):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in forbidden, f"{module}, line {node.lineno}"
                if ast.unparse(node.func) in {"torch.load", "load_state_dict"}:
                    safe = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    assert safe.get("weights_only") == "True", f"{module}, line {node.lineno}"
