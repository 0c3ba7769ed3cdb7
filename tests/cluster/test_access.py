"""Who a runner is at the API server: a service account, whose token changes, or somebody of a kubeconfig."""

import asyncio
import base64
import json
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from runtara.protocol.errors import InvalidSetting
from runtara.runner.cluster.access import Access, find_access
from runtara.runner.cluster.api import JOBS, ApiServer, ClusterAway
from runtara.runner.cluster.objects import Job


@pytest.fixture
def account(authority: Path, tmp_path: Path) -> Path:
    """What Kubernetes mounts into a pod."""
    folder = tmp_path / "account"
    folder.mkdir()
    shutil.copy(authority / "ca.crt", folder)
    (folder / "token").write_text("first\n")
    (folder / "namespace").write_text("runtara-instances")
    return folder


IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


def written(
    folder: Path, *, user: dict[str, Any] | None = None, name: str = "config", **cluster: Any
) -> dict[str, str]:
    """The environment of somebody with this kubeconfig."""
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "preferences": {},
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443/", **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "mine"}},
            {"name": "there", "context": {"cluster": "c", "user": "nobody"}},
        ],
    }  # fmt: skip
    (folder / name).write_text(json.dumps(config))
    return {"KUBECONFIG": str(folder / name)}


def test_in_a_pod_the_service_account_is_used_and_its_token_read_again(account: Path) -> None:
    access = find_access(environ=IN_A_POD, service_account=account)
    assert (access.server, access.namespace) == ("https://10.0.0.1:6443", "runtara-instances")
    assert access.authorization() == "Bearer first"
    (account / "token").write_text("second")
    assert access.authorization() == "Bearer second"


def test_an_address_of_ipv6_is_bracketed(account: Path) -> None:
    access = find_access(environ={"KUBERNETES_SERVICE_HOST": "fd00::1"}, service_account=account)
    assert access.server == "https://[fd00::1]:443"


def test_a_named_context_means_a_kubeconfig_in_a_pod_too(account: Path, tmp_path: Path) -> None:
    environ = IN_A_POD | written(tmp_path, user={"token": "t"})
    assert find_access(environ=environ, service_account=account, context="here").authorization() == "Bearer t"


def test_a_namespace_that_is_given_wins(account: Path, tmp_path: Path) -> None:
    assert find_access(environ=IN_A_POD, service_account=account, namespace="other").namespace == "other"
    assert find_access(environ=written(tmp_path), namespace="other").namespace == "other"
    assert find_access(environ=written(tmp_path)).namespace == "mine"


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": "abc"}, "Bearer abc"),
        ({"tokenFile": "token"}, "Bearer from-a-file"),
        ({"username": "bob", "password": "x"}, "Basic " + base64.b64encode(b"bob:x").decode()),
        ({}, None),
    ],
)
def test_who_somebody_of_a_kubeconfig_is(tmp_path: Path, user: dict[str, Any], header: str | None) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    assert find_access(environ=written(tmp_path, user=user)).authorization() == header


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": {"exec": {"command": "aws"}}}, "'u' gets its token from a plugin, which a runner does not run"),
        ({"certificate-authority-data": "!!"}, "the certificates of the kubeconfig cannot be used"),
        ({"certificate-authority": "nowhere.crt"}, "the certificates of the kubeconfig cannot be used"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        find_access(environ=written(tmp_path, **change))


def test_a_context_that_there_is_not_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="no context 'x'; it has: here, there"):
        find_access(environ=written(tmp_path), context="x")
    with pytest.raises(InvalidSetting, match="no user 'nobody'; it has: u"):
        find_access(environ=written(tmp_path), context="there")


def test_no_kubeconfig_and_no_pod(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="not in a pod, and there is no"):
        find_access(environ={"KUBECONFIG": str(tmp_path / "none")})


def test_of_several_files_the_first_that_has_a_name_wins(tmp_path: Path) -> None:
    one = written(tmp_path, name="one", user={"token": "1"})["KUBECONFIG"]
    two = written(tmp_path, name="two", user={"token": "2"})["KUBECONFIG"]
    assert find_access(environ={"KUBECONFIG": f"{one}:{two}"}).authorization() == "Bearer 1"


# TLS


@pytest.fixture
async def server(authority: Path) -> Any:
    """Answers every request with an empty list, over TLS, to who shows a certificate that the authority vouches for."""

    body = b'{"metadata": {"resourceVersion": "7"}, "items": null}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority / "ca.crt"))
    context.load_cert_chain(authority / "ca.crt", authority / "tls.key")
    context.verify_mode = ssl.CERT_REQUIRED
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


async def listed(access: Access) -> str:
    async with ApiServer(access) as api:
        return (await api.list(JOBS, Job, "a=b")).version


async def test_a_client_certificate_in_the_kubeconfig_or_beside_it(server: str, authority: Path) -> None:
    inside = {
        "client-certificate-data": encoded(authority / "ca.crt"), "client-key-data": encoded(authority / "tls.key"),
    }  # fmt: skip
    beside = {"client-certificate": "ca.crt", "client-key": "tls.key"}
    ours = {"certificate-authority-data": encoded(authority / "ca.crt"), "server": server}
    for user in (inside, beside):
        assert await listed(find_access(environ=written(authority, user=user, **ours))) == "7"


async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(server: str, tmp_path: Path) -> None:
    with pytest.raises(ClusterAway, match="certificate verify failed"):
        await listed(find_access(environ=written(tmp_path, server=server)))
