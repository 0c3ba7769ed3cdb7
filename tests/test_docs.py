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
    "runner", "compose", "cli", "bench", "examples", "tests", "tests/contracts", "tests/testing", "pytest_plugin",
)  # fmt: skip
PAGES: Final = (
    "README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/protocol.md", "docs/settings.md", "docs/testing.md",
    *(f"{folder}/README.md" for folder in FOLDERS),
)  # fmt: skip
MADE_BY_READERS: Final = {"fulfil.py"}


def test_the_settings_page_is_current() -> None:
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
