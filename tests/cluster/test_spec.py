"""What a Job is made of: accepted by Kubernetes' own schemas, as closed as can be, and named within its limits."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara.protocol.records import Image, Options
from runtara.runner.cluster.objects import Job, Meta
from runtara.runner.cluster.spec import Identity, job_manifest, secret_manifest
from runtara.runner.launches import LaunchFailed, Order
from tests.support.cluster.admission import insecurities, problems

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)
IDENTITY = Identity("runtara", "default", "r-1")


def order(**fields: Any) -> Order:
    given: dict[str, Any] = {
        "tenant": "default", "instance": "Order_17-", "workflow": "fulfil", "attempt": 2, "nonce": "ab" * 16,
        "token": "t0ken", "worker": "i-1", "options": Options(), **fields,
    }  # fmt: skip
    return Order(**given)


def image(**fields: Any) -> Image:
    return Image(**{"name": "flows", "version": 3, "reference": "r.example/f@sha256:0", **fields})


def manifest(of: Image | None = None, *, asked: Order | None = None, identity: Identity = IDENTITY) -> dict[str, Any]:
    made = job_manifest(
        identity, asked or order(), of or image(), {"RUNTARA_INSTANCE": "x"}, grace=15.5, launch_seconds=60.0
    )
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made))
    return decoded


def pod(of: Image | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = manifest(of)["spec"]["template"]["spec"]
    return spec


FULL = image(
    memory_bytes=256 * 1024 * 1024, cpus=0.5, pids=64, timeout_us=90_000_000, env={"A": "1"}, secrets=("API_KEY", "b"),
    network="bridge",
)  # fmt: skip


@pytest.mark.parametrize("of", [image(), FULL])
def test_kubernetes_accepts_it_and_the_strictest_standard_too(of: Image) -> None:
    assert problems(manifest(of)) == []
    assert insecurities(pod(of)) == []


@given(tenant=IDS, instance=IDS, workflow=IDS, runner=IDS)
def test_whatever_the_ids_are_names_and_labels_are_legal(
    tenant: str, instance: str, workflow: str, runner: str
) -> None:
    identity = Identity("runtara", tenant, runner)
    made = manifest(asked=order(tenant=tenant, instance=instance, workflow=workflow), identity=identity)
    assert problems(made) == []
    assert made["metadata"]["annotations"]["runtara.dev/instance"] == instance


def test_limits_are_the_containers_and_the_pod_has_a_deadline_behind_the_runners() -> None:
    made = manifest(FULL)
    assert made["spec"]["backoffLimit"] == 0
    assert made["spec"]["activeDeadlineSeconds"] == 90 + 10 + 76
    spec = made["spec"]["template"]["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] == 90 + 10
    assert spec["terminationGracePeriodSeconds"] == 16
    resources = spec["containers"][0]["resources"]
    assert resources["limits"] == resources["requests"] == {"memory": "268435456", "cpu": "500m"}


def test_without_limits_there_are_none() -> None:
    made = manifest()
    assert "activeDeadlineSeconds" not in made["spec"]
    assert made["spec"]["template"]["spec"]["containers"][0]["resources"] == {"limits": {}, "requests": {}}


def test_a_pod_has_no_account_and_writes_nowhere_but_to_a_bounded_tmp() -> None:
    spec = pod(FULL)
    assert spec["automountServiceAccountToken"] is False
    writable = [mount for mount in spec["containers"][0]["volumeMounts"] if not mount.get("readOnly")]
    assert [mount["mountPath"] for mount in writable] == ["/tmp"]
    assert next(v for v in spec["volumes"] if v["name"] == "tmp")["emptyDir"]["sizeLimit"] == str(64 * 1024 * 1024)


def test_secrets_are_files_that_only_the_instance_reads() -> None:
    volumes = {volume["name"]: volume for volume in pod(FULL)["volumes"]}
    assert volumes["settings"]["secret"]["defaultMode"] == 0o400
    assert volumes["secrets"]["projected"]["defaultMode"] == 0o400
    sources = [one["secret"] for one in volumes["secrets"]["projected"]["sources"]]
    assert [(one["name"], one["items"]) for one in sources] == [
        ("api-key", [{"key": "value", "path": "API_KEY"}]), ("b", [{"key": "value", "path": "b"}]),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["runtara-nats", "RUNTARA_NATS", "../x", "", "ä", "-x", "x" * 64])
def test_a_secret_that_must_not_be_had(name: str) -> None:
    with pytest.raises(LaunchFailed, match="cannot be had"):
        manifest(image(secrets=(name,)))


def test_our_variables_win_and_dollars_stay_dollars() -> None:
    env = {
        one["name"]: one["value"]
        for one in pod(image(env={"RUNTARA_INSTANCE": "mine", "P": "$(HOME)$$"}))["containers"][0]["env"]
    }
    assert env["RUNTARA_INSTANCE"] == "x"
    assert env["P"] == "$$(HOME)$$$$"


def test_two_attempts_never_share_a_name() -> None:
    orders = [order(), order(attempt=3), order(nonce="cd" * 16), order(instance="order_17-"), order(tenant="other")]
    assert len({IDENTITY.name(one) for one in orders}) == len(orders)


def test_runners_and_tenants_do_not_see_each_others_jobs() -> None:
    identities = [Identity("d", "t", "r"), Identity("d", "t", "s"), Identity("d", "u", "r"), Identity("e", "t", "r")]
    assert len({one.selector for one in identities}) == 4


def test_the_secret_goes_with_its_job() -> None:
    job = Job(metadata=Meta(name="runtara-x", uid="u-1", labels={"a": "b"}))
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(secret_manifest(job, {"token": "t0ken"})))
    assert problems(made) == []
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "runtara-x", "uid": "u-1"}
    ]
