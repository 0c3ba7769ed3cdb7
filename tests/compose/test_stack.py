"""The compose file, as an operator uses it: up, the README's quick start against it, faults, down."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtara.infra.credentials.files import parse
from runtara.protocol.credentials import Kind
from runtara.runner.images.build import Order, build
from runtara.runner.images.docker_engine import DockerEngine
from tests.compose.evidence import Tally
from tests.compose.page import commands
from tests.support.images import EXAMPLES, base, docker_engine, tag, wheels
from tests.support.polling import eventually
from tests.support.stack import UP_SECONDS, Stack, end, ensure_images

__all__ = ["base", "docker_engine", "tag", "wheels"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
SERVER_FILE = "/var/lib/runtara/server/operator.conf"
RUNNER_FILE = "/var/lib/runtara/runner/runner.creds"


@pytest.fixture(scope="module")
def stack(docker_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Images made here, then `up`, as soon as they are there."""
    images = ensure_images(docker_engine)
    stack = Stack(tmp_path_factory.mktemp("stack"), images)
    shutil.copy(EXAMPLES / "orders.py", stack.folder)
    shutil.copy(Path(__file__).with_name("tally.py"), stack.folder)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


@pytest.fixture
async def credentials(stack: Stack) -> None:
    """On the host."""
    await eventually(stack.has_credentials, within=UP_SECONDS)


@pytest.fixture
def worker(stack: Stack, credentials: None) -> Iterator[None]:
    """On the host, as in the quick start."""
    worker = stack.worker("orders.py")
    try:
        yield
    finally:
        end(worker)


async def test_it_becomes_healthy_and_serves_the_quick_start(stack: Stack, worker: None) -> None:
    await eventually(lambda: {stack.health(e) for e in ("engine-1", "engine-2")} == {"healthy"}, within=UP_SECONDS)
    started = stack.run("start", "orders", "--id", "o-1", "--input", '{"order_ids": ["a", "b"]}')
    assert started.returncode == 0, started.stderr
    result = stack.run("result", "o-1", "--json")
    assert json.loads(result.stdout)["result"][0] == "parcel for a (receipt-a)"
    (listed,) = stack.run("list", "--json").stdout.splitlines()
    assert json.loads(listed)["status"] == "completed"
    assert "InstanceCompleted" in stack.run("log", "o-1").stdout
    info = json.loads(stack.run("info", "--json").stdout)
    assert info["partitions"] == 4
    assert stack.state("migrate")["ExitCode"] == 0
    assert "holds" in stack.operator("audit", "verify").stdout


def test_only_engines_have_the_keys_and_the_server_what_is_public(stack: Stack) -> None:
    for service, has_keys in (("engine-1", True), ("engine-2", True), ("nats", False), ("postgres", False)):
        mounts = [mount["Name"] for mount in stack.inspect(service)["Mounts"] if mount["Type"] == "volume"]
        assert any(name.endswith("_keys") for name in mounts) is has_keys, service
    told = stack.compose(
        "exec", "-T", "nats", "sh", "-c", "while read l; do echo $l; done </etc/nats/server/operator.conf"
    )
    assert told.startswith("operator: ey")
    assert stack.compose("logs", "keys").count("keys.json") == 1, "drawn once"


def test_on_the_network_of_instances_there_is_nats_and_neither_its_figures_nor_the_database(
    stack: Stack, base: str
) -> None:
    look = (
        "import socket\n"
        "for host, port in (('nats', 4222), ('nats', 8222), ('postgres', 5432), ('engine-1', 80)):\n"
        "    try: socket.create_connection((host, port), 2).close(); print(host, port)\n"
        "    except OSError: pass\n"
    )
    command = ["docker", "run", "--rm", "--network", f"{stack.project}-bus", base, "python3", "-c", look]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "nats 4222\n"


async def test_engines_go_on_when_either_of_them_or_a_server_is_killed(stack: Stack, worker: None) -> None:
    """`docker kill` is the hand of an operator, after which only `up` starts a container again."""
    for n, service in enumerate(("engine-1", "postgres", "nats")):
        stack.docker("kill", service)
        stack.up()

        def completes(id: str = f"k-{n}") -> bool:
            stack.run("start", "orders", "--id", id, "--input", '{"order_ids": ["a"]}')
            return stack.run("result", id, "--timeout", "5").returncode == 0

        await eventually(completes, within=UP_SECONDS, what=f"an instance after {service} was killed")


async def test_engines_and_workers_are_replaced_one_by_one_while_a_workflow_runs(
    stack: Stack, credentials: None
) -> None:
    """By the commands of the page; nothing is done twice but a step in flight."""
    tally = Tally(stack, "rolling")
    old = stack.worker("tally.py")
    new = None
    try:
        assert tally.start()
        await eventually(lambda: tally.done() > 10, within=60, what="some steps")
        before = {engine: stack.container(engine) for engine in ("engine-1", "engine-2")}
        stack.shell(commands("upgrade"))
        assert all(stack.container(engine) != id for engine, id in before.items())
        new = stack.worker("tally.py")
        end(old)
        await tally.finish(repeated=1)
    finally:
        for worker in filter(None, (old, new)):
            end(worker)


def test_what_the_page_says_to_look_at_can_be_seen(stack: Stack) -> None:
    stack.shell(commands("look"))


def test_keys_are_rotated_by_the_operator_while_it_runs(stack: Stack) -> None:
    rotate = ("credential", "rotate", "/var/lib/runtara/keys", "--configuration", SERVER_FILE, "--json")
    done = stack.operator(*rotate, "--after", "1s")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"signs_from", "old_until"}
    early = stack.operator(*rotate, "--operator", "--use")
    assert early.returncode == 0, "nothing was drawn, so there is nothing to do"
    made = stack.operator("credential", "create", "--out", "-")
    credential = parse(made.stdout)
    assert credential.holder is not None
    assert credential.holder.kind is Kind.CLIENT
    stack.compose("restart", "nats")  # with what the rotation wrote for it
    assert stack.operator("info").returncode == 0


def test_what_has_ended_goes_to_an_archive_outside(stack: Stack) -> None:
    """As the page says it, but at once; to give the folder to the containers' user takes root."""
    stack.shell(commands("archive").replace("30d", "0s"))
    assert list((stack.folder / "archive").rglob("*.gz"))


async def test_parts_that_come_up_late_are_waited_for(stack: Stack, credentials: None) -> None:
    """Engines first, and nothing else there; then the servers."""
    stack.compose("stop", "--timeout", "5")
    for service in ("engine-1", "engine-2"):
        stack.docker("start", service)
    assert stack.run("info").returncode == 5
    for service in ("postgres", "nats"):
        stack.docker("start", service)
    await eventually(lambda: stack.run("info").returncode == 0, within=UP_SECONDS)


async def test_the_runner_of_the_stack_runs_an_image_in_a_container(
    stack: Stack, credentials: None, docker_engine: DockerEngine, base: str, wheels: Path, tag: str
) -> None:
    """With a credential of its own, which a restart and another `up` leave as it is; it never had the keys."""
    order = Order(target=str(stack.folder / "orders.py"), tag=tag, base=base, wheelhouse=wheels)
    image = build(docker_engine, order, lambda _: None).id
    stack.up("runner")
    registered = stack.run("image", "register", "orders", image, "--memory", "128m")
    assert registered.returncode == 0, registered.stderr

    async def runs(id: str) -> None:
        assert stack.run("start", "orders", "--id", id, "--input", '{"order_ids": ["a"]}').returncode == 0
        await eventually(lambda: stack.run("result", id, "--timeout", "5").returncode == 0, within=UP_SECONDS)

    await runs("boxed")
    started = [json.loads(line) for line in stack.run("log", "boxed", "--json").stdout.splitlines()]
    assert started[0]["data"]["options"]["image"]["reference"] == image

    show = ("exec", "-T", "runner", "python3", "-c", f"print(open('{RUNNER_FILE}').read())")
    shown = stack.compose(*show)
    holder = parse(shown).holder
    assert holder is not None
    assert (holder.kind, holder.tenant) == (Kind.RUNNER, "default")
    assert not [mount for mount in stack.inspect("runner")["Mounts"] if "keys" in mount["Destination"]]
    stack.docker("kill", "runner")
    stack.up("runner")
    await eventually(lambda: stack.health("runner") == "healthy", within=UP_SECONDS)
    assert stack.compose(*show) == shown
    await runs("boxed-again")


def test_containers_are_ordinary_users_with_a_read_only_root(stack: Stack) -> None:
    container = stack.inspect("engine-1")
    assert container["Config"]["User"] == "65532:65532"
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert container["HostConfig"]["Memory"] == 512 * 1024**2
