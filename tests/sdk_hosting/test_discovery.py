"""Targets become workflows and a code version."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtara.protocol.errors import InvalidTarget
from runtara.sdk.discovery import load, watched_folders

GREET = """
from runtara.sdk import Context, workflow

@workflow
async def greet(ctx: Context, name: str) -> str:
    return name
"""
Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports is forgotten after it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def forget(*names: str) -> None:
    for name in names:
        sys.modules.pop(name, None)


def names(*targets: str) -> list[str]:
    return [workflow.name for workflow in load(targets).workflows]


def test_a_file_hosts_every_workflow_it_has_as_an_attribute(write: Write) -> None:
    write("flow_parts.py", GREET.replace("greet", "part"))
    target = write("flow_app.py", f"{GREET}\nfrom flow_parts import part\nalias = greet\nnumber = 3\n")
    assert sorted(names(target)) == ["greet", "part"]


def test_a_module_on_the_path_is_found_from_the_current_directory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("flow_pack/__init__.py", "")
    write("flow_pack/flows.py", GREET)
    monkeypatch.chdir(tmp_path)
    assert names("flow_pack.flows") == ["greet"]


def test_a_name_behind_a_colon_picks_one_workflow(write: Write) -> None:
    target = write("flow_two.py", GREET + GREET.replace("greet", "other"))
    assert names(f"{target}:other") == ["other"]
    assert sorted(names(target, f"{target}:other")) == ["greet", "other"]


def test_two_different_workflows_of_one_id_are_an_error(write: Write) -> None:
    one, two = write("flow_one.py", GREET), write("flow_other.py", GREET)
    with pytest.raises(InvalidTarget, match=r"two different workflows have the id 'greet'.*@workflow\(name="):
        load([one, two])


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module_here", "there is no module 'no_such_module_here'"),
        ("runtara.no_such_module", r"there is no module 'runtara\.no_such_module'"),
        ("nowhere.py", "there is no such file"),
        ("nowhere.json", "there is no such file"),
        ("flow.json:name", "a JSON file is one workflow"),
        ("not a module", "use a module, module:name, file.py or flow.json"),
        ("json:3x", "is no name"),
        ("json:loads", "loads is no workflow"),
        ("json:nothing", "it has no such name"),
        ("json", "it has no workflow"),
    ],
)
def test_a_target_that_cannot_be_used_says_why(target: str, reason: str) -> None:
    with pytest.raises(InvalidTarget, match=reason):
        load([target])


def test_an_error_in_the_code_itself_is_the_cause(write: Write) -> None:
    with pytest.raises(InvalidTarget, match="ModuleNotFoundError: No module named 'missing_dependency'") as caught:
        load([write("flow_broken.py", "import missing_dependency\n")])
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    with pytest.raises(InvalidTarget, match="SyntaxError"):
        load([write("flow_worse.py", "def:\n")])


def test_a_file_named_like_a_standard_module_does_not_hide_it(write: Write) -> None:
    target = write("queue.py", GREET)
    import queue

    assert names(target) == ["greet"]
    assert sys.modules["queue"] is queue
    forget("runtara_target_queue")


def test_the_code_version_is_that_of_the_sources_wherever_they_are(write: Write, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(f"{folder}/flow_lib.py", "WORD = 1\n")
        write(f"{folder}/flow_main.py", f"import flow_lib\n{GREET}")
    versions = {}
    for folder in ("a", "b"):
        forget("flow_main", "flow_lib")
        sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(tmp_path))]
        code = load([str(tmp_path / folder / "flow_main.py")])
        versions[folder] = code.version
        assert [file.name for file in code.files] == ["flow_lib.py", "flow_main.py"]
    assert versions["a"] == versions["b"]
    forget("flow_main", "flow_lib")
    write("b/flow_lib.py", "WORD = 2\n")
    assert load([str(tmp_path / "b" / "flow_main.py")]).version != versions["b"]


def test_a_json_file_is_a_workflow_named_like_it(write: Write, tmp_path: Path) -> None:
    text = '{"steps": {"end": {"stepType": "Finish", "inputMapping": {}}}}'
    target = write("over-night.json", text)
    code = load([target])
    assert [workflow.name for workflow in code.workflows] == ["over-night"]
    assert code.files == (tmp_path / "over-night.json",)
    assert load([write("over-night.json", text.replace("end", "done"))]).version != code.version
    with pytest.raises(InvalidTarget, match=r"has 1 error\(s\): E204 there is no step type 'Finnish'"):
        load([write("bad.json", text.replace("Finish", "Finnish"))])
    with pytest.raises(InvalidTarget, match="not JSON: Expecting property name"):
        load([write("bad.json", "{")])


def test_a_reload_watches_the_folder_of_a_file_and_else_the_current_one(write: Write, tmp_path: Path) -> None:
    assert watched_folders([write("sub/flow.py", GREET), "json"]) == sorted({tmp_path / "sub", Path.cwd()})
