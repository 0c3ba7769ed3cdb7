"""Images are built from a target without a network, host what it holds, and say so. With a real Docker Engine."""

import io
import secrets
import subprocess
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from runtara.protocol.errors import DockerUnreachable, ImageFailed, ImageNotFound, InvalidTarget
from runtara.protocol.images import WORKFLOWS_LABEL
from runtara.protocol.records import Image
from runtara.runner.images.build import Built, Order, build, registrations, start_once
from runtara.runner.images.context import BASE_LABEL, USER
from runtara.runner.images.docker_engine import DockerEngine, resolve
from tests.support.images import EXAMPLES
from tests.support.wheelhouse import wheelhouse

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

MAX_ADDED_BYTES = 40_000_000  # of a workflow image above its Python base: DESIGN's budget
MAX_ADDED_WITH_AGENTS_BYTES = 120_000_000  # lxml, cryptography, pydantic, countries and so on
FLOW = """
from runtara.sdk import Context, workflow
{imports}

@workflow(restarts=3)
async def greet(ctx: Context, name: str = "you") -> str:
    "Greets."
    return {value}
"""


def flow(folder: Path, *, imports: str = "", value: str = "name", name: str = "flow.py") -> str:
    file = folder / name
    file.write_text(FLOW.format(imports=imports, value=value))
    return str(file)


def unlimited(reference: str) -> Image:
    return Image(name="test", version=1, reference=reference)


@pytest.fixture(scope="module")
def orders(docker_engine: DockerEngine, base: str, wheels: Path) -> Iterator[Built]:
    """The example's image."""
    tag = f"runtara-test-{secrets.token_hex(4)}:1"
    told: list[str] = []
    order = Order(target=str(EXAMPLES / "orders.py"), tag=tag, base=base, wheelhouse=wheels)
    yield build(docker_engine, order, told.append)
    assert any("pip install" in line for line in told), told
    docker_engine.remove(tag)


def test_a_json_workflow_becomes_an_image_with_the_agents_that_it_calls(
    docker_engine: DockerEngine, base: str, tag: str
) -> None:
    target = str(EXAMPLES / "json" / "invoice.json")
    order = Order(target=target, tag=tag, base=base, wheelhouse=wheelhouse("agents"))
    built = build(docker_engine, order, lambda _: None)
    assert built.tested.hosts == ["invoice"]
    assert (built.tested.problems, built.tested.warnings) == ([], [])
    assert built.added < MAX_ADDED_WITH_AGENTS_BYTES


def test_an_image_hosts_what_its_target_does_and_is_small(orders: Built, docker_engine: DockerEngine) -> None:
    assert orders.tested.hosts == ["orders", "orders-at-most-once"]
    assert (orders.tested.user, orders.tested.problems, orders.tested.warnings) == (USER, [], [])
    assert 0 < orders.added < MAX_ADDED_BYTES
    found = docker_engine.require(orders.tag, "")
    assert found.labels[BASE_LABEL].startswith(f"{orders.base} sha256:")
    labelled = registrations(found)
    assert labelled is not None
    assert [one.workflow for one in labelled] == orders.tested.hosts
    assert b'"order_ids"' in bytes(labelled[0].parameters)
    assert {one.kind for one in labelled} == {"docker"}


def test_an_image_runs_under_a_read_only_root_and_owns_nothing(orders: Built, docker_engine: DockerEngine) -> None:
    code = "import os; print([p for p in ('/app', '/opt/runtara', '/') if os.access(p, os.W_OK)])"
    ran = docker_engine.run_once(orders.tag, ["python3", "-c", code], unlimited(orders.tag), seconds=60)
    assert (ran.code, ran.stdout.strip()) == (0, "[]"), ran.stderr


def test_nothing_is_compiled_when_a_container_starts(orders: Built, docker_engine: DockerEngine) -> None:
    code = (
        "import sys, importlib.util as u, runtara.sdk.run, runtara.sdk.worker; "
        "print([m.__name__ for m in list(sys.modules.values()) "
        "if type(getattr(m, '__loader__', None)).__name__ == 'SourceFileLoader' "  # the others are in the interpreter
        "and not __import__('os').path.exists(u.cache_from_source(m.__file__))])"
    )
    ran = docker_engine.run_once(orders.tag, ["python3", "-c", code], unlimited(orders.tag), seconds=60)
    assert (ran.code, ran.stdout.strip()) == (0, "[]"), ran.stderr


def test_the_same_code_is_the_same_image(orders: Built, docker_engine: DockerEngine, wheels: Path, tag: str) -> None:
    """From the builder's cache, which compares what goes in: hence the context has the same bytes."""
    order = Order(target=str(EXAMPLES / "orders.py"), tag=tag, base=orders.base, wheelhouse=wheels)
    assert build(docker_engine, order, lambda _: None).id == orders.id


def test_sources_from_beside_the_target_and_included_files_come_along(
    docker_engine: DockerEngine, base: str, wheels: Path, tag: str, tmp_path: Path
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "hello.txt").write_text('Hello "$NAME" \\ {}')
    (tmp_path / "wording.py").write_text("from pathlib import Path\nHELLO = Path('texts/hello.txt')\n")
    (tmp_path / "not_loaded.py").write_text("raise SystemExit")
    target = flow(tmp_path, imports="from wording import HELLO", value="HELLO.read_text()")
    order = Order(target=f"{target}:greet", tag=tag, base=base, wheelhouse=wheels, include=[tmp_path / "texts"])
    built = build(docker_engine, order, lambda _: None)
    assert built.tested.hosts == ["greet"]
    listing = "import os; print(sorted(f for _, _, fs in os.walk('/app') for f in fs if not f.endswith('.pyc')))"
    ran = docker_engine.run_once(tag, ["python3", "-c", listing], unlimited(tag), seconds=60)
    assert ran.stdout.strip() == "['flow.py', 'hello.txt', 'wording.py']"
    (registration,) = registrations(docker_engine.require(tag, "")) or []
    assert (registration.options.restarts, registration.description) == (3, "Greets.")


def test_a_module_of_a_package_is_a_target_too(
    docker_engine: DockerEngine, base: str, wheels: Path, tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shop_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("")
    flow(package, name="flows.py")
    monkeypatch.chdir(tmp_path)
    built = build(
        docker_engine, Order(target="shop_of_tests.flows", tag=tag, base=base, wheelhouse=wheels), lambda _: None
    )
    assert built.tested.hosts == ["greet"]


def test_requirements_come_from_the_wheelhouse_with_or_without_hashes(
    docker_engine: DockerEngine, base: str, wheels: Path, tag: str, tmp_path: Path
) -> None:
    target = flow(tmp_path, imports="import structlog", value="structlog.__name__")
    pinned = tmp_path / "requirements.txt"
    hashes = {tuple(path.name.split("-")[:2]): sha256(path.read_bytes()).hexdigest() for path in wheels.glob("*.whl")}
    for text in ("structlog\n", "".join(f"{n}=={v} --hash=sha256:{digest}\n" for (n, v), digest in hashes.items())):
        pinned.write_text(text)
        order = Order(target=target, tag=tag, base=base, wheelhouse=wheels, requirements=pinned)
        assert build(docker_engine, order, lambda _: None).tested.hosts == ["greet"]


def test_a_requirement_that_the_wheelhouse_lacks_is_named(
    docker_engine: DockerEngine, base: str, wheels: Path, tag: str, tmp_path: Path
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("no-such-thing-anywhere==1\n")
    order = Order(target=flow(tmp_path), tag=tag, base=base, wheelhouse=wheels, requirements=requirements)
    with pytest.raises(ImageFailed, match="no-such-thing-anywhere"):
        build(docker_engine, order, lambda _: None)


def test_code_that_imports_here_but_not_in_the_image_fails_the_build(
    docker_engine: DockerEngine, base: str, wheels: Path, tag: str, tmp_path: Path
) -> None:
    target = flow(tmp_path, imports="import pytest")  # which the image does not have
    with pytest.raises(ImageFailed, match="No module named 'pytest'"):
        build(docker_engine, Order(target=target, tag=tag, base=base, wheelhouse=wheels), lambda _: None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module_here", "ModuleNotFoundError"),
        ("x = 1", "it has no workflow"),
        ("def (", "SyntaxError"),
        ("import os; os._exit(9)", "exit code 9"),
    ],
)
def test_a_target_that_does_not_load_is_not_built(
    docker_engine: DockerEngine, base: str, tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "flow.py").write_text(text)
    with pytest.raises(InvalidTarget, match=reason):
        build(docker_engine, Order(target=str(tmp_path / "flow.py"), tag="never:1", base=base), lambda _: None)
    assert docker_engine.inspect("never:1") is None


def test_what_is_included_lies_below_the_targets_folder(docker_engine: DockerEngine, base: str, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "secret.txt").write_text("no")
    order = Order(target=flow(tmp_path / "code"), tag="never:1", base=base, include=[tmp_path / "secret.txt"])
    with pytest.raises(InvalidTarget, match="below"):
        build(docker_engine, order, lambda _: None)


def test_a_base_that_is_not_there_says_how_to_get_one(docker_engine: DockerEngine, tmp_path: Path) -> None:
    order = Order(target=flow(tmp_path), tag="never:1", base="nothing-of-the-kind:9")
    with pytest.raises(ImageNotFound, match=r"docker pull nothing-of-the-kind:9.*--base"):
        build(docker_engine, order, lambda _: None)


def test_without_a_docker_engine_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(DockerUnreachable, match=r"No such file.*DOCKER_HOST"):
        DockerEngine.connect()


def derived(engine: DockerEngine, base: str, tag: str, *lines: str) -> None:
    """An image by hand, as somebody else would make it."""
    text = "\n".join([f"FROM {base}", *lines, ""]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    engine.build(buffer.getvalue(), tag=tag, build_args={}, network=False, told=lambda _: None)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["ENTRYPOINT []", "CMD []"], "no command"),
        (['ENTRYPOINT ["python3", "-c", "print(1)"]'], "does not say what it hosts"),
        (['ENTRYPOINT ["python3", "-c", "import sys; sys.exit(\'so what\')"]'], "exit code 1: so what"),
        (['ENTRYPOINT ["no-such-program"]'], "no-such-program"),
        ([f"LABEL {WORKFLOWS_LABEL}=[]"], "not what its label says"),
        (["USER 0", "ENV PYTHONPATH=/nowhere"], "No module named"),
    ],
)
def test_a_test_says_what_keeps_an_image_from_hosting(
    orders: Built, docker_engine: DockerEngine, tag: str, lines: list[str], problem: str
) -> None:
    derived(docker_engine, orders.tag, tag, *lines)
    tested = start_once(docker_engine, tag, unlimited(tag))
    assert [problem in text for text in tested.problems] == [True], tested.problems


def test_a_test_warns_of_an_image_that_runs_as_root(orders: Built, docker_engine: DockerEngine, tag: str) -> None:
    derived(docker_engine, orders.tag, tag, "USER 0")
    tested = start_once(docker_engine, tag, unlimited(tag))
    assert (tested.problems, tested.user) == ([], 0)
    assert "root" in tested.warnings[0]


def test_a_test_is_run_under_the_limits_that_were_registered(
    orders: Built, docker_engine: DockerEngine, tag: str
) -> None:
    derived(docker_engine, orders.tag, tag, "ENTRYPOINT " + '["python3", "-c", "b\' \' * 200_000_000"]')
    limited = Image(name="test", version=1, reference=tag, memory_bytes=32 * 1024**2)
    assert "exit code 137" in start_once(docker_engine, tag, limited).problems[0]


def test_a_broken_label_is_an_error_and_not_a_guess(orders: Built, docker_engine: DockerEngine, tag: str) -> None:
    derived(docker_engine, orders.tag, tag, f"LABEL {WORKFLOWS_LABEL}=nonsense")
    with pytest.raises(ImageFailed, match="is not what `image build` writes"):
        registrations(docker_engine.require(tag, ""))


def test_a_name_is_resolved_to_what_it_means_now(orders: Built, docker_engine: DockerEngine) -> None:
    reference, found = resolve(docker_engine, orders.tag)
    assert reference == orders.id
    assert found is not None
    assert resolve(docker_engine, f"{orders.tag}@{orders.id}")[0] == orders.id


def test_a_name_that_means_nothing_or_something_else_is_refused(orders: Built, docker_engine: DockerEngine) -> None:
    with pytest.raises(ImageNotFound, match="no registry has it"):
        resolve(docker_engine, "nothing-of-the-kind:9")
    with pytest.raises(ImageNotFound, match=f"under this name is {orders.id}"):
        resolve(docker_engine, f"{orders.tag}@sha256:{'0' * 64}")


def test_a_container_that_is_run_once_leaves_nothing(orders: Built, docker_engine: DockerEngine) -> None:
    slow = ["python3", "-c", "import time; time.sleep(60)"]
    limits = Image(name=secrets.token_hex(8), version=1, reference=orders.tag)
    assert docker_engine.run_once(orders.tag, slow, limits, seconds=1).code is None
    listed = ["docker", "ps", "--all", "--quiet", "--filter", f"label=dev.runtara.check={limits.name}"]
    assert subprocess.run(listed, capture_output=True, check=True).stdout == b""
