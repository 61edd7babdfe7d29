"""Imports go down only, each library stays in its folder, and importing does nothing but define names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from ich_triage import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
FRONT = tuple(sorted(path.name for path in ROOT.glob("*.py")))
PACKAGES = ("triage", "dicom_listener", "inference", "worklist_ui", "training")
MODULES = sorted([ROOT / name for name in FRONT] + [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")])

# library: the files and folders that may import it
HOMES = {
    "sqlite3": ("triage/ledger/",),
    "sqlite_utils": ("triage/ledger/",),
    "pynetdicom": ("dicom_listener/",),
    "flask": ("worklist_ui/",),
    "flask_wtf": ("worklist_ui/",),
    "werkzeug": ("worklist_ui/",),
    "jinja2": ("worklist_ui/",),
    "gunicorn": ("worklist_ui/",),
    "grpc": ("inference/",),
    "tensorflow": ("training/", "inference/model_server/", "inference/extract_messages.py"),
    "keras": ("training/",),
    "tensorflow_serving": ("inference/extract_messages.py",),
}
SQL = re.compile(
    r"\s*(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s\S+\sSET|DELETE\s+FROM|PRAGMA\s)", re.DOTALL
)
# the last one reads nothing: it writes what Keras and MLflow take from the environment alone
READS_ENVIRONMENT = frozenset(FRONT) | {"triage/settings.py", "training/library_switches.py"}
WITHOUT_TENSORFLOW = ("training/", "inference/model_server/", "inference/extract_messages.py")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))


@cache
def imported_by(path: Path) -> tuple[tuple[str, int], ...]:
    """Give the top-level package and line of each import, those inside functions too."""
    return tuple(_imports(tree_of(path)))


def _imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def in_fresh_python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Give the top-level packages that are loaded once `code` has run."""
    done = in_fresh_python(f"{code}\nprint('LOADED', *sorted(sys.modules), file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stderr.splitlines() if line.startswith("LOADED"))
    return {name.partition(".")[0] for name in line.split()[1:]}


def test_import_contract_is_kept():
    lint = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_no_package_imports_the_front():
    front = {Path(name).stem for name in FRONT}

    strays = [
        f"{name_of(path)}:{line}"
        for path in MODULES
        if name_of(path) not in FRONT
        for package, line in imported_by(path)
        if package in front
    ]

    assert strays == []


@pytest.mark.parametrize("library", HOMES)
def test_library_is_imported_only_at_home(library):
    strays = [
        f"{name_of(path)}:{line}"
        for path in MODULES
        if not name_of(path).startswith(HOMES[library])
        for package, line in imported_by(path)
        if package == library
    ]

    assert strays == [], f"{library} is imported outside {', '.join(HOMES[library])}"


def test_sql_is_written_only_in_the_ledger():
    strays = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if not name_of(path).startswith("triage/ledger/")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value)
    ]

    assert strays == []


def test_environment_is_read_only_at_the_front():
    strays = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if name_of(path) not in READS_ENVIRONMENT
        for node in ast.walk(tree_of(path))
        if reads_environment(node)
    ]

    assert strays == [], "settings come from triage/settings.py and are passed down as values"


def reads_environment(node: ast.AST) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}) or (
        isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and any(alias.name in {"environ", "environb", "getenv"} for alias in node.names)
    )


def test_modules_do_nothing_at_their_top_level_but_define():
    """A call as a statement, a loop or a `with` at the top level of a module is an effect of importing it."""
    effects = [
        f"{name_of(path)}:{statement.lineno}"
        for path in MODULES
        for statement in tree_of(path).body
        if is_effect(statement)
    ]

    assert effects == []


def is_effect(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant) and not adds_command(statement.value)
    if isinstance(statement, ast.For):
        return any(is_effect(each) for each in statement.body)
    return isinstance(statement, (ast.While, ast.With, ast.Delete, ast.Raise, ast.Assert))


def adds_command(value: ast.expr) -> bool:
    """A click group that gets its sub-commands is being defined."""
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "add_command"


WATCHED_IMPORT = """
import json, logging, os, pathlib, signal, threading, importlib
def state():
    gdcm = "GDCM_RESOURCES_PATH"  # the library tells itself where its tables are
    environment = {{name: value for name, value in os.environ.items() if name != gdcm}}
    return environment, signal.getsignal(signal.SIGTERM), logging.getLogger().handlers[:]
before = state()
for name in {names!r}:
    importlib.import_module(name)
assert state() == before, "environment, signal handlers or log handlers were changed"
assert threading.active_count() == 1, threading.enumerate()
assert not list(pathlib.Path().iterdir()), "files were written"
"""


def test_importing_everything_has_no_effect(tmp_path):
    names = [module_name(path) for path in MODULES if not name_of(path).startswith(WITHOUT_TENSORFLOW)]

    done = in_fresh_python(WATCHED_IMPORT.format(names=names), cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_listener_needs_neither_model_nor_web():
    loaded = modules_after("import ich_triage; ich_triage.main(['listen', '--help'])")

    assert loaded.isdisjoint({"tensorflow", "keras", "scipy", "grpc", "flask"})


def test_worker_needs_neither_tensorflow_nor_dicom_network():
    outside = ("inference/model_server/", "inference/extract_messages.py", "inference/serve_cli.py")
    names = [
        module_name(path)
        for path in MODULES
        if name_of(path).startswith("inference/") and not name_of(path).startswith(outside)
    ]

    loaded = modules_after("import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names))

    assert loaded.isdisjoint({"tensorflow", "tensorflow_serving", "keras", "pynetdicom", "flask"})


def test_help_of_the_front_door_loads_no_package_of_the_product():
    loaded = modules_after("import ich_triage; ich_triage.main(['--help'])")

    assert loaded.isdisjoint({"dicom_listener", "inference", "worklist_ui", "training", "numpy"})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_front_door_exists(command):
    found = cli.get_command(click.Context(cli), command)

    assert found is not None
    assert found.help, "a command says what it does"
