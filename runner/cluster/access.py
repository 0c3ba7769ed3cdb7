"""Where the API server is and how to be somebody there: the service account of a pod, or a kubeconfig.

In a pod the files that Kubernetes mounts are used; elsewhere `KUBECONFIG` or `~/.kube/config`, as kubectl does: several
files are joined, the first that has a name wins. Tokens, client certificates and passwords are understood; plugins that
have to be run for a token are not (a service account's token does the same without running a program of somebody's).

Invariant: a token that came from a file is read again for each request, since Kubernetes replaces it every hour. The
authority's certificate is read once: it lives for years.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import yaml

from runtara.protocol.errors import InvalidSetting

T = TypeVar("T", bound="_Named")

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_NAMESPACE: Final = "default"
Authorization = Callable[[], str | None]


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """`authorization` gives the header of the next request, `tls` is None without TLS."""

    server: str
    namespace: str
    tls: ssl.SSLContext | None
    authorization: Authorization


class _Kebab(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    pass


class _Cluster(_Kebab, frozen=True, kw_only=True):
    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False


class _User(_Kebab, frozen=True, kw_only=True):
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    username: str | None = None
    password: str | None = None
    exec: dict[str, object] | None = None
    auth_provider: dict[str, object] | None = None


class _Context(_Kebab, frozen=True, kw_only=True):
    cluster: str = ""
    user: str = ""
    namespace: str | None = None


class _Named(_Kebab, frozen=True, kw_only=True):
    name: str
    folder: Path = Path()


class _NamedCluster(_Named, frozen=True, kw_only=True):
    cluster: _Cluster


class _NamedUser(_Named, frozen=True, kw_only=True):
    user: _User


class _NamedContext(_Named, frozen=True, kw_only=True):
    context: _Context


class _KubeConfig(_Kebab, frozen=True, kw_only=True):
    current_context: str | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


def find_access(
    *, namespace: str | None = None, context: str | None = None, environ: Mapping[str, str] | None = None,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access:  # fmt: skip
    """A `context` means a kubeconfig. Raises `InvalidSetting`."""
    environ = os.environ if environ is None else environ
    host = environ.get("KUBERNETES_SERVICE_HOST")
    if context is None and host and (service_account / "token").exists():
        server = f"https://{_bracketed(host)}:{environ.get('KUBERNETES_SERVICE_PORT', '443')}"
        return _in_cluster(server, service_account, namespace)
    files = [Path(file) for file in environ.get("KUBECONFIG", "").split(os.pathsep) if file]
    access = _from_kubeconfig(files or [Path.home() / ".kube" / "config"], context, namespace)
    access.authorization()  # a file of a token that is not there is said now
    return access


def _in_cluster(server: str, folder: Path, namespace: str | None) -> Access:
    try:
        tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        own = (folder / "namespace").read_text().strip()
    except (OSError, ssl.SSLError) as exc:
        raise _unusable(f"the service account in {folder} cannot be read: {exc}") from exc
    return Access(
        server=server, namespace=namespace or own, tls=tls, authorization=lambda: _bearer(_read(folder / "token"))
    )


def _from_kubeconfig(files: list[Path], context: str | None, namespace: str | None) -> Access:
    found = [_load(file) for file in files if file.exists()]
    if not found:
        raise _unusable(f"not in a pod, and there is no {' or '.join(map(str, files))}; name a file in KUBECONFIG")
    name = context or next((one.current_context for one in found if one.current_context), None)
    if name is None:
        raise _unusable("the kubeconfig has no current context; name one with --context")
    chosen = _pick("context", name, [one for config in found for one in config.contexts or []]).context
    cluster = _pick("cluster", chosen.cluster, [one for config in found for one in config.clusters or []])
    user = _pick("user", chosen.user, [one for config in found for one in config.users or []])
    return Access(
        server=cluster.cluster.server.rstrip("/"),
        namespace=namespace or chosen.namespace or DEFAULT_NAMESPACE,
        tls=_tls(cluster, user) if cluster.cluster.server.startswith("https:") else None,
        authorization=_authorization(user),
    )


def _load(file: Path) -> _KubeConfig:
    """Paths in a kubeconfig are relative to it, so each entry keeps its folder."""
    try:
        config = msgspec.convert(yaml.safe_load(file.read_text()) or {}, _KubeConfig)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as exc:
        raise _unusable(f"the kubeconfig {file} cannot be read: {exc}") from exc
    folder = file.absolute().parent
    return _KubeConfig(
        current_context=config.current_context,
        clusters=[msgspec.structs.replace(one, folder=folder) for one in config.clusters or []],
        users=[msgspec.structs.replace(one, folder=folder) for one in config.users or []],
        contexts=config.contexts,
    )


def _pick(kind: str, name: str, among: list[T]) -> T:
    found = next((one for one in among if one.name == name), None)
    if found is None:
        known = ", ".join(sorted(one.name for one in among)) or "none"
        raise _unusable(f"the kubeconfig has no {kind} {name!r}; it has: {known}")
    return found


def _tls(cluster: _NamedCluster, user: _NamedUser) -> ssl.SSLContext:
    known, mine = cluster.cluster, user.user
    try:
        authority = _decoded(known.certificate_authority_data)
        file = known.certificate_authority if authority is None else None
        tls = ssl.create_default_context(
            cafile=str(cluster.folder / file) if file else None, cadata=authority.decode() if authority else None
        )
        if known.insecure_skip_tls_verify:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        with tempfile.TemporaryDirectory() as folder:
            certificate = _as_file(user.folder, mine.client_certificate, mine.client_certificate_data, folder, "crt")
            key = _as_file(user.folder, mine.client_key, mine.client_key_data, folder, "key")
            if certificate is not None:
                tls.load_cert_chain(certificate, key)
    except (OSError, ValueError, ssl.SSLError) as exc:
        raise _unusable(f"the certificates of the kubeconfig cannot be used: {exc}") from exc
    return tls


def _as_file(base: Path, file: str | None, data: str | None, folder: str, suffix: str) -> Path | None:
    """`ssl` reads a client's certificate from files only; a temporary folder is closed to others."""
    content = _decoded(data)
    if content is None:
        return base / file if file else None
    path = Path(folder, f"client.{suffix}")
    path.write_bytes(content)
    return path


def _authorization(named: _NamedUser) -> Authorization:
    user = named.user
    if user.token_file is not None:
        file = named.folder / user.token_file
        return lambda: _bearer(_read(file))
    if user.token is not None:
        header = _bearer(user.token)
        return lambda: header
    if user.username is not None:
        pair = base64.b64encode(f"{user.username}:{user.password or ''}".encode()).decode()
        return lambda: f"Basic {pair}"
    if user.exec is not None or user.auth_provider is not None:
        raise _unusable(
            f"user {named.name!r} gets its token from a plugin, which a runner does not run; "
            "give it a service account's token (kubectl create token)"
        )
    return lambda: None


def _bearer(token: str) -> str:
    return f"Bearer {token}"


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as exc:
        raise _unusable(f"the token {file} cannot be read: {exc}") from exc


def _decoded(data: str | None) -> bytes | None:
    return base64.b64decode(data, validate=True) if data else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _unusable(reason: str) -> InvalidSetting:
    return InvalidSetting(name="kubeconfig", value="", reason=reason)
