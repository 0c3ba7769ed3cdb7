"""The pages are current: what is made from the code is, and what they name exists."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = (
    "protocol", "infra", "sdk", "sdk/testing", "engine", "engine/lifecycle", "engine/memory", "projections",
    "runner", "compose", "cli", "bench", "agents", "dsl", "examples", "tests", "tests/contracts", "tests/testing",
    "pytest_plugin",
)  # fmt: skip
PAGES: Final = (
    "README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/protocol.md", "docs/settings.md", "docs/testing.md",
    "docs/operations.md", "docs/agents.md", "docs/dsl.md",
    *(f"{folder}/README.md" for folder in FOLDERS),
)  # fmt: skip
MADE_BY_READERS: Final = {"fulfil.py"}


def test_the_pages_that_are_made_from_the_code_are_current() -> None:
    script = ROOT / "docs" / "generate.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    file = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)\)", file.read_text())
    assert [link for link in links if not (file.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page: str) -> None:
    """From the root, or from the folder whose page it is."""
    file = ROOT / page
    named = re.findall(r"`([\w./-]+(?:\.py|\.md|/))`", file.read_text())
    missing = [name for name in named if not any((base / name).exists() for base in (ROOT, file.parent))]
    assert [name for name in missing if name not in MADE_BY_READERS] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_says_what_it_is_for_in_a_page(folder: str) -> None:
    lines = (ROOT / folder / "README.md").read_text().splitlines()
    assert len(lines) <= 60
    assert any(line.startswith(("Start reading", "## Where to start")) for line in lines)


OPERATIONS: Final = (ROOT / "docs" / "operations.md").read_text()
COMPOSE_ONLY: Final = {"RUNTARA_IMAGE"}  # variables of the compose file, not of the platform
OF_NATS: Final = {"max_bytes"}


def section(title: str) -> str:
    """Of the operations page."""
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", OPERATIONS, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_settings_that_the_operations_page_names_exist() -> None:
    settings = (ROOT / "docs" / "settings.md").read_text()
    named = set(re.findall(r"`(RUNTARA_[A-Z_]+)", OPERATIONS)) - COMPOSE_ONLY
    assert {name for name in named if f"`{name}`" not in settings} == set()


def test_the_limits_that_the_operations_page_names_exist() -> None:
    limits = (ROOT / "protocol" / "limits.py").read_text()
    named = set(re.findall(r"`([A-Z_]+)`", section("Limits")))
    assert named
    assert {name for name in named if f"{name}: Final" not in limits} == set()


def test_the_log_events_that_the_operations_page_names_exist() -> None:
    folders = ("infra", "sdk", "engine", "projections", "runner", "compose")
    code = "".join(file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.py"))
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", section("What to watch"))) - OF_NATS
    assert named
    assert {event for event in named if f'"{event}"' not in code} == set()


def test_the_errors_that_the_operations_page_names_exist() -> None:
    errors = (ROOT / "protocol" / "errors.py").read_text()
    named = re.findall(r"^\| `([A-Z][a-z]\w+)`", section("What to watch"), re.MULTILINE)
    assert named
    assert [error for error in named if f"class {error}(" not in errors] == []


def test_the_tests_that_the_operations_page_names_exist() -> None:
    named = re.findall(r"`(test_\w+)` \(`([\w/.]+)`\)", OPERATIONS)
    assert named
    assert [test for test, file in named if f"def {test}(" not in (ROOT / file).read_text()] == []
