"""compose/kubernetes: accepted by Kubernetes' own schemas, closed, and consistent with itself and with the code."""

import functools
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
import yaml

from runtara.cli.app import app
from runtara.compose import binaries
from runtara.infra.credentials.keyring import CONFIGURATION_FILE, FILE, KeyRing
from runtara.infra.settings import FILE_SUFFIX, PREFIX, SECRETS, Settings
from runtara.protocol.limits import MAX_PAYLOAD_BYTES
from tests.support.cluster.admission import insecurities, problems
from tests.support.cluster.policies import Peer, matches, may_speak

ROOT: Final = Path(__file__).parents[2]
MANIFESTS: Final = ROOT / "compose" / "kubernetes"
Object = dict[str, Any]
URL: Final = re.compile(r"\w+://(?:[^@/]*@)?([a-z0-9.-]+)\.svc:(\d+)")


@functools.cache
def rendered(name: str) -> tuple[Object, ...]:
    """What `kubectl apply -k` would send."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        if "kubectl" in os.environ.get("RUNTARA_REQUIRE", "").split(","):
            pytest.fail("there is no kubectl, and RUNTARA_REQUIRE says that there must be")
        pytest.skip("there is no kubectl here")
    made = subprocess.run([kubectl, "kustomize", str(MANIFESTS / name)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return tuple(yaml.safe_load_all(made.stdout))


SERVERS = {"runtara-postgres", "runtara-nats"}  # Secrets that nobody uses where the servers are elsewhere


@pytest.fixture(params=["single", "cluster", "external"])
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return list(rendered(request.param))


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [one for one in objects if one["kind"] in kinds]


def templates(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each workload and its pod."""
    for one in of_kind(objects, "Deployment", "StatefulSet", "Job"):
        yield one, one["spec"]["template"]


def containers(objects: list[Object]) -> Iterator[Object]:
    for _, pod in templates(objects):
        yield from pod["spec"]["containers"]


def name(one: Object) -> tuple[str, str]:
    return one["metadata"].get("namespace", ""), one["metadata"]["name"]


def examples() -> list[Object]:
    return list(yaml.safe_load_all((MANIFESTS / "secrets.example.yaml").read_text()))


def test_kubernetes_accepts_everything(objects: list[Object]) -> None:
    assert len(objects) > 10
    assert [(name(one), problems(one)) for one in [*objects, *examples()] if problems(one)] == []


def test_a_field_that_there_is_not_would_be_found(objects: list[Object]) -> None:
    engine = next(one for one in objects if name(one) == ("runtara", "engine") and one["kind"] == "Deployment")
    assert problems({**engine, "spec": {**engine["spec"], "replica": 2}})


def test_every_pod_passes_the_strictest_standard(objects: list[Object]) -> None:
    found = {name(one): insecurities(pod["spec"]) for one, pod in templates(objects)}
    assert len(found) >= 3
    assert not any(found.values()), found
    for namespace in of_kind(objects, "Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_write_to_their_volumes_alone_and_only_the_runner_has_an_account(objects: list[Object]) -> None:
    assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in containers(objects))
    with_account = [
        one["metadata"]["name"] for one, pod in templates(objects) if pod["spec"]["automountServiceAccountToken"]
    ]
    assert with_account == ["runner"]


def test_every_container_has_a_limit_of_memory(objects: list[Object]) -> None:
    assert all(one["resources"]["limits"]["memory"] for one in containers(objects))


def test_namespaces_exist(objects: list[Object]) -> None:
    known = {one["metadata"]["name"] for one in of_kind(objects, "Namespace")}
    others = [one for one in objects if one["kind"] != "Namespace"]
    assert {one["metadata"]["namespace"] for one in others} == known == {"runtara", "runtara-instances"}


def test_names_are_given_once(objects: list[Object]) -> None:
    names = [(one["kind"], *name(one)) for one in objects]
    assert len(set(names)) == len(names)


def test_selectors_select(objects: list[Object]) -> None:
    pods = [(one["metadata"]["namespace"], pod["metadata"]["labels"]) for one, pod in templates(objects)]
    for one, pod in templates(objects):
        if one["kind"] != "Job":
            assert matches(one["spec"]["selector"], pod["metadata"]["labels"]), name(one)
    for one in of_kind(objects, "Service", "PodDisruptionBudget"):
        selector = one["spec"]["selector"]
        selector = selector if "matchLabels" in selector else {"matchLabels": selector}
        assert [labels for where, labels in pods if where == one["metadata"]["namespace"] and matches(selector, labels)]


def test_services_name_ports_of_their_pods(objects: list[Object]) -> None:
    ports = {port["name"]: port["containerPort"] for one in containers(objects) for port in one.get("ports", [])}
    for service in of_kind(objects, "Service"):
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    for one in of_kind(objects, "StatefulSet"):
        assert (one["metadata"]["namespace"], one["spec"]["serviceName"]) in map(name, of_kind(objects, "Service"))


def test_addresses_name_services_or_servers_that_there_are(objects: list[Object]) -> None:
    services = {f"{one['metadata']['name']}.{one['metadata']['namespace']}": one for one in of_kind(objects, "Service")}
    hosts = {host: {p["port"] for p in one["spec"]["ports"]} for host, one in services.items()}
    for one in of_kind(objects, "StatefulSet"):
        ports = {p["containerPort"] for c in one["spec"]["template"]["spec"]["containers"] for p in c["ports"]}
        for n in range(one["spec"]["replicas"]):
            hosts[f"{one['metadata']['name']}-{n}.{one['spec']['serviceName']}.{one['metadata']['namespace']}"] = ports
    for config in of_kind(objects, "ConfigMap"):
        for host, port in URL.findall(str(config["data"])):
            assert int(port) in hosts[host], f"{host}:{port}"


def test_the_example_of_a_database_url_names_the_service() -> None:
    found = URL.findall((MANIFESTS / "secrets.example.yaml").read_text())
    assert found == [("postgres.runtara", "5432")]


def test_secrets_and_configmaps_that_are_used_exist_with_these_keys(objects: list[Object]) -> None:
    keys = {(*name(one), key) for one in examples() for key in one["stringData"]}
    maps = {(*name(one), key) for one in of_kind(objects, "ConfigMap") for key in one["data"]}
    used: set[tuple[str, str, str]] = set()
    for one, pod in templates(objects):
        namespace, volumes = one["metadata"]["namespace"], {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        claims = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys() | claims
            for source in container.get("envFrom", []):
                assert (namespace, source["configMapRef"]["name"]) in map(name, of_kind(objects, "ConfigMap"))
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                if "secretKeyRef" in source:
                    used.add((namespace, source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]))
                if "configMapKeyRef" in source:
                    assert (namespace, source["configMapKeyRef"]["name"], source["configMapKeyRef"]["key"]) in maps
                used |= _mounted(namespace, variable, container, volumes)
            used |= {key for volume in volumes.values() for key in _projected(namespace, volume)}
    assert used <= keys
    assert {key[1] for key in keys} - {key[1] for key in used} <= SERVERS, "an example that nobody uses"


def _projected(namespace: str, volume: Object) -> Iterator[tuple[str, str, str]]:
    """The keys of Secrets that become files beside others."""
    for source in volume.get("projected", {}).get("sources", []):
        for item in source.get("secret", {}).get("items", []):
            yield namespace, source["secret"]["name"], item["key"]


def _mounted(
    namespace: str, variable: Object, container: Object, volumes: dict[str, Object]
) -> set[tuple[str, str, str]]:
    """The key of a Secret that a variable names: `…_FILE`, a credential's file, the folder of the keys."""
    if variable["name"] == "RUNTARA_NATS_KEYS":
        folder, key = variable["value"], FILE
    elif variable["name"] == "RUNTARA_NATS_CREDENTIALS" or variable["name"].endswith(FILE_SUFFIX):
        folder, _, key = variable["value"].rpartition("/")
    else:
        return set()
    mount = next(mount for mount in container["volumeMounts"] if mount["mountPath"] == folder)
    return {(namespace, volumes[mount["name"]]["secret"]["secretName"], key)}


def test_images_are_named_once_and_ours_has_this_version(objects: list[Object]) -> None:
    images = {one["image"] for one in containers(objects)}
    names = [image.partition(":")[0] for image in images]
    assert len(names) == len(set(names))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"runtara:{version}" in images


def test_variables_are_settings(objects: list[Object]) -> None:
    settings = {f"{PREFIX}{field.upper()}" for field in Settings.__slots__}
    files = {f"{PREFIX}{field.upper()}{FILE_SUFFIX}" for field in SECRETS}
    config = next(one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == "runtara")
    given = {variable["name"] for one in containers(objects) for variable in one.get("env", [])} | config["data"].keys()
    assert {variable for variable in given if variable.startswith(PREFIX)} <= settings | files
    assert Settings.load(environ=config["data"]).replicas == (
        3 if "nats-2" in config["data"]["RUNTARA_NATS_URL"] else 1
    )


def test_commands_are_ours(objects: list[Object]) -> None:
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    seen = set()
    for container in containers(objects):
        if container["image"].startswith("runtara:"):
            first, *rest = container["args"]
            seen.add(first)
            command.commands[first].make_context(first, list(rest))
    assert seen == {"engine", "migrate", "runner"}


def test_the_account_of_the_runner_has_its_role(objects: list[Object]) -> None:
    (binding,) = of_kind(objects, "RoleBinding")
    (role,) = of_kind(objects, "Role")
    (account,) = of_kind(objects, "ServiceAccount")
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", role["metadata"]["name"])
    assert name(binding)[0] == name(role)[0] == "runtara-instances"
    assert [(s["namespace"], s["name"]) for s in binding["subjects"]] == [name(account)]
    runner = next(pod for one, pod in templates(objects) if one["metadata"]["name"] == "runner")
    assert runner["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_two_engines_and_an_upgrade_that_keeps_both(objects: list[Object]) -> None:
    engine = next(one for one in of_kind(objects, "Deployment") if one["metadata"]["name"] == "engine")
    runner = next(one for one in of_kind(objects, "Deployment") if one["metadata"]["name"] == "runner")
    assert engine["spec"]["replicas"] == 2
    assert engine["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert (runner["spec"]["replicas"], runner["spec"]["strategy"]["type"]) == (1, "Recreate")


@pytest.mark.parametrize("kind", ["single", "cluster"])
def test_nats_reads_its_configuration_and_syncs_always(kind: str, tmp_path: Path) -> None:
    config = next(one for one in rendered(kind) if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "nats")
    text = config["data"]["nats.conf"]
    assert "sync_interval: always" in text
    assert f"max_payload: {MAX_PAYLOAD_BYTES}" in text
    (tmp_path / "nats.conf").write_text(text.replace("/data", str(tmp_path)))
    (tmp_path / "server").mkdir()
    ring = KeyRing.load_or_create(tmp_path)
    (tmp_path / "server" / CONFIGURATION_FILE).write_text(ring.configuration(tmp_path / "accounts"))
    environ = {"POD_NAME": "nats-0"}
    command = [str(binaries.nats_server()), "-t", "-c", str(tmp_path / "nats.conf")]
    tried = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr


# who may speak with whom


@pytest.mark.parametrize("kind", ["single", "cluster"])
def test_the_network_policies_let_through_what_is_needed_and_nothing_else(kind: str) -> None:
    objects = list(rendered(kind))
    policies = of_kind(objects, "NetworkPolicy")
    pods = {
        one["metadata"]["name"]: Peer(namespace="runtara", labels=pod["metadata"]["labels"])
        for one, pod in templates(objects)
    }
    pods["bus"] = Peer(namespace="runtara-instances", labels={"runtara.dev/network": "bus"})
    pods["bridge"] = Peer(namespace="runtara-instances", labels={"runtara.dev/network": "bridge"})
    pods["stranger"] = Peer(namespace="default", labels={"runtara.dev/bus": "client", "runtara.dev/database": "client"})
    pods["internet"] = Peer(address="93.184.215.14")
    pods["cloud metadata"] = Peer(address="169.254.169.254")
    pods["api server"] = Peer(address="10.96.0.1")

    def reaches(target: str, port: int) -> set[str]:
        return {source for source, peer in pods.items() if may_speak(policies, peer, pods[target], port)} - {target}

    outside = {"internet", "cloud metadata", "api server"}
    assert reaches("nats", 4222) - outside == {"engine", "migrate", "runner", "bus", "bridge"}
    assert reaches("postgres", 5432) - outside == {"engine", "migrate"}
    for target in ("engine", "runner", "bus", "bridge"):
        assert reaches(target, 4222) - outside == set()
    assert reaches("internet", 8443) - outside == {"bridge", "stranger"}
    assert reaches("cloud metadata", 80) - outside == {"stranger"}
    assert reaches("api server", 443) - outside == {"runner", "stranger"}
    assert may_speak(policies, pods["nats"], pods["nats"], 6222) is (kind == "cluster")
