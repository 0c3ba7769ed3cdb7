"""What the README shows works: its Python is written to files, its commands are typed, on a platform of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import data_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RUNTARA = [sys.executable, "-m", "runtara.cli"]

pytestmark = pytest.mark.timeout(120)


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for of, text in fenced if of == language]


@pytest.fixture(scope="module")
def workplace() -> Iterator[Path]:
    """A directory with the README's workflow in it, in which `runtara dev` runs."""
    with data_folder() as folder:
        (folder / "fulfil.py").write_text(blocks("python")[0])
        (command,) = [block for block in blocks("sh") if block.startswith("runtara dev")]
        arguments = command.split()[1:]
        dev = subprocess.Popen([*RUNTARA, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert dev.stdout is not None
        assert dev.stderr is not None
        try:
            assert dev.stdout.readline().startswith(b"ready "), dev.stderr.read().decode()
            yield folder
        finally:
            dev.terminate()
            dev.communicate(timeout=60)


def test_the_commands_of_the_quick_start_work_in_their_order(workplace: Path) -> None:
    (script,) = [block for block in blocks("sh") if block.startswith("runtara start")]
    commands = script.strip().splitlines()
    assert len(commands) == 6
    for command in commands:
        line = command.replace("runtara", f"{sys.executable} -m runtara.cli", 1)
        done = subprocess.run(line, shell=True, cwd=workplace, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, (command, done.stderr)
        assert "o-1" in done.stdout or command in (
            "runtara result o-1",
            "runtara log o-1 --follow",
            "runtara audit verify",
        )
    assert (
        subprocess.run([*RUNTARA, "result", "o-1"], cwd=workplace, capture_output=True, text=True, check=True).stdout
        == "2\n"
    )


def test_the_client_of_the_readme_gets_its_result(workplace: Path) -> None:
    (workplace / "client.py").write_text(blocks("python")[1])
    done = subprocess.run(
        [sys.executable, "client.py"], cwd=workplace, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_the_json_workflow_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    (document,) = blocks("json")
    (commands,) = [block for block in blocks("sh") if "dsl validate" in block]
    (excerpt,) = [block for block in blocks("text") if "run.agent" in block]
    (tmp_path / "orders.json").write_text(document)
    validate, run, compile = commands.splitlines()
    said = [
        subprocess.run(
            line.replace("runtara", f"{sys.executable} -m runtara.cli", 1),
            shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        for line in (validate, compile)
    ]  # fmt: skip
    assert said[0] == "orders.json: valid\n"
    assert excerpt in said[1]
    with data_folder() as folder:
        (folder / "orders.json").write_text(document)
        line = run.replace("runtara", f"{sys.executable} -m runtara.cli", 1) + " --json"
        done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == {"counts": {"de": 2, "fr": 1}}


def test_the_agent_of_the_readme_works_in_a_workflow_and_alone(tmp_path: Path) -> None:
    """Installed as a package would be: its file and its entry point are on the path."""
    (code,) = [block for block in blocks("python") if '@agent("prices"' in block]
    (commands,) = [block for block in blocks("sh") if "agents test prices" in block]
    (tmp_path / "prices.py").write_text(code)
    info = tmp_path / "prices-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: prices\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[runtara.agents]\nprices = prices:Prices\n")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def typed(line: str) -> str:
        command = line.replace("runtara", f"{sys.executable} -m runtara.cli", 1)
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    show, alone = commands.strip().splitlines()
    assert "UNKNOWN_SKU" in typed(show)
    assert typed(alone) == "2.0\n"
    assert typed("""runtara run prices.py:order --input '{"sku": "nut"}'""") == "2.0\n"


def test_the_demo_prints_what_the_readme_shows() -> None:
    """But for the numbers, and with a smaller batch."""
    (shown,) = [block for block in blocks("") if block.startswith("Runtara demo")]
    done = subprocess.run(
        [*RUNTARA, "demo", "--orders", "100"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert without_numbers(done.stdout) == without_numbers(shown)


def without_numbers(text: str) -> list[str]:
    return [re.sub(r"\d[\d,]*", "n", line) for line in text.strip().splitlines()]


def test_every_page_it_names_exists() -> None:
    pages = re.findall(r"\]\(([^)#:]+)\)", README)
    assert pages
    assert [page for page in pages if not (ROOT / page).exists()] == []
