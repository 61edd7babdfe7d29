"""The locks hold what the extras ask for, each is enough for its process, and the wheel carries its data files."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
DEV = PROJECT["dependency-groups"]["dev"]
LOCKS = ("build", "dev", *EXTRAS)
NO_TENSORFLOW = ("listener", "worker", "worklist")
# extra: what its process runs, and what lies below that and another process runs
MODULES_OF = {
    "listener": (("dicom_listener",), ()),
    "worker": (("inference",), ("inference.model_server", "inference.serve_cli", "inference.extract_messages")),
    "server": (("inference.model_server", "inference.serve_cli"), ()),
    "worklist": (("worklist_ui",), ()),
    "train": (("training",), ()),
}
FRONT = tuple(f"{name}.py" for name in PROJECT["tool"]["setuptools"]["py-modules"])
PACKAGE_FOLDERS = ("triage", "dicom_listener", "inference", "worklist_ui", "training")


def lock_text(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")


def entries(lock: str) -> list[Requirement]:
    """Give a lock's lines; a package may stand in it once a Python version or platform."""
    return [Requirement(line.rstrip(" \\")) for line in lock_text(lock).splitlines() if re.match(r"[A-Za-z0-9]", line)]


def pins(lock: str) -> dict[str, Version]:
    """Give the version of each package that the lock installs here."""
    return {
        canonicalize_name(entry.name): Version(str(entry.specifier).removeprefix("=="))
        for entry in entries(lock)
        if entry.marker is None or entry.marker.evaluate()
    }


def direct(extra: str) -> list[Requirement]:
    """Give what a lock must hold: the extra's requirements and those of every process."""
    asked = {"dev": [*DEV, *(text for texts in EXTRAS.values() for text in texts)], "build": []}.get(extra)
    asked = EXTRAS[extra] if asked is None else asked
    base = PROJECT["build-system"]["requires"] if extra == "build" else PROJECT["project"]["dependencies"]
    return [Requirement(text) for text in (*base, *asked)]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_every_direct_dependency(lock):
    locked = pins(lock)

    wrong = [str(asked) for asked in direct(lock) if not satisfied(asked, locked)]

    assert wrong == [], f"make lock: requirements/{lock}.txt lacks these"


def satisfied(asked: Requirement, locked: dict[str, Version]) -> bool:
    version = locked.get(canonicalize_name(asked.name))
    return version is not None and asked.specifier.contains(version, prereleases=True)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_every_package_by_version_and_hash(lock):
    without_comments = re.sub(r"^\s*#.*\n?", "", lock_text(lock), flags=re.MULTILINE)
    blocks = [block for block in re.split(r"\n(?=\S)", without_comments) if block.strip()]

    loose = [block.splitlines()[0] for block in blocks if not ("==" in block and "--hash=sha256:" in block)]

    assert loose == []
    assert len(blocks) == len(entries(lock)) > 0


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_address(lock):
    assert re.findall(r"\S*(?:://|--(?:extra-)?index-url|--find-links)\S*", lock_text(lock)) == []


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock != "dev"])
def test_processes_have_the_versions_that_the_tests_ran_with(lock):
    tested = pins("dev")

    other = {name: str(version) for name, version in pins(lock).items() if tested.get(name) != version}

    assert other == {}


@pytest.mark.parametrize("lock", NO_TENSORFLOW)
def test_lock_has_no_tensorflow(lock):
    assert not [name for name in pins(lock) if name.startswith(("tensorflow", "keras"))]


def test_tensorflow_is_not_newer_than_the_server_that_compose_names():
    [served] = set(re.findall(r"tensorflow/serving:(\d+\.\d+)\.\d+(?:-gpu)?\s", compose_text()))

    for lock in ("server", "train"):
        assert str(pins(lock)["tensorflow"]).startswith(f"{served}.")


def compose_text() -> str:
    return "".join(
        (ROOT / name).read_text(encoding="utf-8") for name in ("docker-compose.yml", "docker-compose.cpu.yml")
    )


# The build of a backend is the accelerator's, and only a cluster has the other: whoever asks for one installs it.
CHOSEN_BY_THE_HOST = {"train": {"jax", "torch", "kubernetes"}}


@pytest.mark.parametrize("extra", MODULES_OF)
def test_lock_is_enough_for_its_process(extra):
    """Whatever the process's modules import, inside functions too, and what these import of ours in turn."""
    locked, own = set(pins(extra)), our_modules()
    roots, others = MODULES_OF[extra]
    names = [name for name in own if name.startswith(roots) and not name.startswith(others)]

    asked = {package for name in reached(names, own) for package in foreign_imports(own[name])}

    assert names
    lacking = {package for package in asked if not distributions_of(package) & locked}
    assert lacking - CHOSEN_BY_THE_HOST.get(extra, set()) == set()


def our_modules() -> dict[str, Path]:
    paths = [path for name in PACKAGE_FOLDERS for path in (ROOT / name).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def reached(names: list[str], own: dict[str, Path]) -> set[str]:
    """Give these modules and those of ours that they import, over any number of steps."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in own and name not in found:
            found.add(name)
            waiting += imported_names(own[name])
    return found


@cache
def imported_names(path: Path) -> frozenset[str]:
    """Give what a module imports by full name; of `from a import b` both `a` and `a.b`, for b may be a module."""
    names: set[str] = set()
    for node in running_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from running_nodes(node)


def foreign_imports(path: Path) -> set[str]:
    tops = {name.partition(".")[0] for name in imported_names(path)}
    return {top for top in tops if top not in sys.stdlib_module_names and top not in PACKAGE_FOLDERS}


packages_distributions = cache(metadata.packages_distributions)  # reads every installed package's file list


def distributions_of(package: str) -> set[str]:
    return {canonicalize_name(name) for name in packages_distributions().get(package, ())}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, built from a copy so that nothing is written beside the sources."""
    source, out = tmp_path_factory.mktemp("source") / "project", tmp_path_factory.mktemp("out")
    kept = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in PACKAGE_FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=kept)
    for name in ("pyproject.toml", "README.md", "LICENSE", *FRONT):
        shutil.copy(ROOT / name, source / name)
    code = f"from setuptools import build_meta as b; b.build_wheel({str(out)!r}); b.build_sdist({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_wheel_carries_code_and_data_files(built):
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    assert expected_files() <= names


def test_sdist_carries_code_data_files_and_licence(built):
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert expected_files() | {"LICENSE", "README.md", "pyproject.toml"} <= names


def expected_files() -> set[str]:
    """Give the front's modules and every file below the packages that the product reads or runs."""
    wanted = {".py", ".html", ".css", ".js", ".svg", ".binpb", ".toml"}
    return set(FRONT) | {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGE_FOLDERS
        for path in (ROOT / name).rglob("*")
        if path.suffix in wanted or path.name == "py.typed"
    }


def test_data_files_of_every_kind_are_declared():
    """A new kind of file below a package must be added to the wheel, or left out on purpose."""
    known = {".py", ".html", ".css", ".js", ".svg", ".binpb", ".toml", ".md", ".pyc"}

    strangers = [
        path.relative_to(ROOT).as_posix()
        for name in PACKAGE_FOLDERS
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in known and path.name != "py.typed"
    ]

    assert strangers == []
