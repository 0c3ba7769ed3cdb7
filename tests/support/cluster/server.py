"""A stand-in for a Kubernetes cluster: an API server over real HTTPS, with controllers and a kubelet behind it.

There is no cluster where the tests run, and none can be had. This one speaks what a runner speaks, as the
documentation and the real one's schemas have it: list in pages with `continue`, watch as a stream of JSON lines with
bookmarks and `ERROR` 410, create with validation, pod security and 409, delete with propagation, logs, bearer tokens,
roles, `Status` objects as errors. What it is not: etcd, admission webhooks, field selectors, other resources, fairness.

Invariants: a request without the right for it is 403 (`used` collects those that were); faults come only when a test
asks.
"""

import asyncio
import base64
import contextlib
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from .admission import granted, insecurities, problems
from .controllers import Controllers
from .kubelet import Kubelet
from .store import KINDS, Gone, Object, Store

GROUPS: Final = {"jobs": "apis/batch/v1", "pods": "api/v1", "secrets": "api/v1"}
REASONS: Final = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    410: "Expired",
    422: "Invalid",
}


def _group(version: str, plurals: list[str]) -> Object:
    """What there is in a group, as a client asks before it begins."""
    resources = [
        {"name": plural, "singularName": "", "namespaced": True, "kind": KINDS[plural][1], "verbs": VERBS}
        for plural in plurals
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


VERBS: Final = ["create", "delete", "get", "list", "watch"]
_BATCH: Final = {"groupVersion": "batch/v1", "version": "v1"}
DISCOVERY: Final[dict[str, Object]] = {
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList", "apiVersion": "v1",
        "groups": [{"name": "batch", "versions": [_BATCH], "preferredVersion": _BATCH}],
    },
    "/api/v1": _group("v1", ["pods", "secrets"]),
    "/apis/batch/v1": _group("batch/v1", ["jobs"]),
}  # fmt: skip


class Cluster:
    """`rules`: of the Role of the token's owner, in `namespace`. `authority`: a folder with its certificate and key."""

    def __init__(
        self, folder: Path, rules: list[dict[str, Any]], authority: Path, namespace: str = "runtara-instances"
    ) -> None:
        self.namespace = namespace
        self.store = Store()
        self.kubelet = Kubelet(self.store, folder)
        self.token = secrets.token_hex(16)
        self.rights = granted(rules)
        self.used: set[tuple[str, str]] = set()
        self.calls: Counter[tuple[str, str]] = Counter()
        self.page_size = 500
        self._controllers = Controllers(self.store, self.kubelet.delete)
        self._faults: list[tuple[str, str, int, Response]] = []
        self._lost_answers: list[tuple[str, str]] = []
        self._snapshots: dict[str, tuple[str, list[Object]]] = {}
        self._hang_ups = asyncio.Event()
        self._folder = folder
        self._authority = authority
        self.url = ""

    # for tests

    def kubeconfig(self, *, server: str | None = None, token: str | None = None) -> Path:
        """A file with which to be the runner; JSON is YAML, too."""
        certificate = str(self._authority / "ca.crt")
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [
                {"name": "test", "cluster": {"server": server or self.url, "certificate-authority": certificate}},
            ],
            "users": [{"name": "runner", "user": {"token": token or self.token}}],
            "contexts": [
                {"name": "test", "context": {"cluster": "test", "user": "runner", "namespace": self.namespace}},
            ],
        }  # fmt: skip
        file = self._folder / "kubeconfig"
        file.write_text(json.dumps(config))
        return file

    def fail(
        self, verb: str, resource: str, status: int, message: str, *, retry_after: int | None = None, after: int = 0
    ) -> None:
        """The next such call; or the one that comes `after` so many."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        number = self.calls[verb, resource] + after + 1
        self._faults.append((verb, resource, number, _status(status, message, headers)))

    def lose_answer(self, verb: str, resource: str) -> None:
        """The next such call is carried out, and its answer gets lost."""
        self._lost_answers.append((verb, resource))

    def hang_up(self) -> None:
        """End all watches as a server does whose time is up."""
        self._hang_ups.set()
        self._hang_ups = asyncio.Event()

    def pod_of(self, instance: str) -> Object | None:
        """The last pod of an instance."""
        mine = [
            pod
            for pod in self.store.all("pods", self.namespace)
            if pod["metadata"]["annotations"]["runtara.dev/instance"] == instance
        ]
        return max(mine, key=lambda pod: int(pod["metadata"]["resourceVersion"]), default=None)

    def delete_job(self, name: str) -> None:
        """As somebody with kubectl would."""
        self._controllers.delete_job(self.namespace, name, "Background")

    def create_secret(self, name: str, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.store.create("secrets", self.namespace, {"metadata": {"name": name}, "data": data})

    # life

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Cluster"]:
        base = "/{group:path}/namespaces/{namespace}/{plural}"
        routes = [
            *(Route(path, lambda _, found=found: JSONResponse(found)) for path, found in DISCOVERY.items()),
            Route(f"/api/v1/namespaces/{self.namespace}", self._its_namespace),
            Route(base, self._collection, methods=["GET", "POST"]),
            Route(base + "/{name}", self._one, methods=["DELETE", "GET"]),
            Route(base + "/{name}/log", self._log, methods=["GET"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none",
            timeout_graceful_shutdown=1, ssl_certfile=self._authority / "ca.crt",
            ssl_keyfile=self._authority / "tls.key",
        )  # fmt: skip
        server = _Server(config)
        tasks = [asyncio.create_task(run) for run in (
            server.serve(), self._controllers.run(self.namespace), self.kubelet.run(self.namespace),
        )]  # fmt: skip
        while not server.started:
            assert not tasks[0].done(), tasks[0]
            await asyncio.sleep(0.01)
        self.url = f"https://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self.hang_up()
            server.should_exit = True
            await tasks[0]
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks[1:], return_exceptions=True)
            await self.kubelet.close()

    # requests

    def _its_namespace(self, request: Request) -> Response:
        """kubectl looks for it before it says that something is not there."""
        return JSONResponse({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})

    async def _collection(self, request: Request) -> Response:
        params = request.query_params
        verb = "create" if request.method == "POST" else "watch" if params.get("watch") == "true" else "list"
        refusal = self._admit(request, verb, request.path_params["plural"])
        if refusal is not None:
            return refusal
        if verb == "create":
            return await self._create(request)
        return self._watch(request) if verb == "watch" else self._list(request)

    async def _one(self, request: Request) -> Response:
        plural, name = request.path_params["plural"], request.path_params["name"]
        refusal = self._admit(request, "delete" if request.method == "DELETE" else "get", plural)
        found = self.store.get(plural, self.namespace, name)
        if refusal is not None:
            return refusal
        if found is None:
            return _status(404, f'{plural} "{name}" not found')
        if request.method == "DELETE":
            options = json.loads(await request.body() or b"{}")
            assert plural == "jobs", "nothing else is deleted by a runner"
            self._controllers.delete_job(self.namespace, name, options.get("propagationPolicy", "Background"))
            return self._answer("delete", plural, JSONResponse({"kind": "Status", "status": "Success"}))
        return JSONResponse(found)

    async def _log(self, request: Request) -> Response:
        refusal = self._admit(request, "get", "pods/log")
        if refusal is not None:
            return refusal
        log = self.kubelet.log(self.namespace, request.path_params["name"])
        if log is None:
            return _status(400, 'container "instance" is waiting to start')
        lines = b"".join(log.splitlines(keepends=True)[-int(request.query_params["tailLines"]) :])
        return PlainTextResponse(lines[: int(request.query_params["limitBytes"])])

    def _admit(self, request: Request, verb: str, resource: str) -> Response | None:
        self.calls[verb, resource] += 1
        path = request.path_params
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        if GROUPS.get(path["plural"]) != path["group"] or path["namespace"] != self.namespace:
            return _status(404, "the server could not find the requested resource")
        if (verb, resource) not in self.rights:
            message = (
                f'{resource} is forbidden: User "system:serviceaccount:runtara:runner" cannot {verb} "{resource}" '
                f'in the namespace "{self.namespace}"'
            )
            return _status(403, message)
        self.used.add((verb, resource))
        for fault in self._faults:
            if fault[:2] == (verb, resource) and self.calls[verb, resource] >= fault[2]:
                self._faults.remove(fault)
                return fault[3]
        return None

    async def _create(self, request: Request) -> Response:
        plural = request.path_params["plural"]
        given = json.loads(await request.body())
        wrong = problems(given)
        name = given["metadata"]["name"]
        if wrong:
            return _status(422, f'{given["kind"]} "{name}" is invalid: {"; ".join(wrong)}')
        if self.store.get(plural, self.namespace, name) is not None:
            return _status(409, f'{plural} "{name}" already exists')
        if plural == "jobs" and (unsafe := insecurities(given["spec"]["template"]["spec"])):
            return _status(
                403, f'pods "{name}" is forbidden: violates PodSecurity "restricted:latest": {", ".join(unsafe)}'
            )
        for key, value in given.pop("stringData", {}).items():
            given.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
        made = self.store.create(plural, self.namespace, given)
        return self._answer("create", plural, JSONResponse(made, status_code=201))

    def _answer(self, verb: str, plural: str, response: Response) -> Response:
        if (verb, plural) in self._lost_answers:
            self._lost_answers.remove((verb, plural))
            return _Broken()
        return response

    def _list(self, request: Request) -> Response:
        params, plural = request.query_params, request.path_params["plural"]
        asked = params.get("continue")
        if asked is None:
            version = str(self.store.version)
            items = [
                one for one in self.store.all(plural, self.namespace) if _selected(one, params.get("labelSelector"))
            ]
        elif asked in self._snapshots:
            version, items = self._snapshots.pop(asked)
        else:
            return _status(410, "The provided continue parameter is too old to display a consistent list result.")
        size = min(int(params.get("limit", 0)) or self.page_size, self.page_size)
        meta = {"resourceVersion": version}
        if len(items) > size:
            meta["continue"] = secrets.token_hex(8)
            self._snapshots[meta["continue"]] = (version, items[size:])
        api_version, kind = KINDS[plural]
        return JSONResponse({"apiVersion": api_version, "kind": f"{kind}List", "metadata": meta, "items": items[:size]})

    def _watch(self, request: Request) -> Response:
        params, plural = request.query_params, request.path_params["plural"]
        bookmarks = params.get("allowWatchBookmarks") == "true"
        lines = self._lines(plural, int(params["resourceVersion"]), params.get("labelSelector"), bookmarks)
        return StreamingResponse(_until(lines, self._hang_ups), media_type="application/json")

    async def _lines(self, plural: str, version: int, selector: str | None, bookmarks: bool) -> AsyncIterator[bytes]:
        try:
            async for type, one in self.store.changes(plural, self.namespace, version):
                if bookmarks if type == "BOOKMARK" else _selected(one, selector):
                    yield json.dumps({"type": type, "object": one}, ensure_ascii=False).encode() + b"\n"
        except Gone:
            gone = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410}
            gone["message"] = f"too old resource version: {version} ({self.store.version})"
            yield json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield  # they are pytest's


class _Broken(Response):
    """The connection ends before an answer came."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        transport = getattr(send, "__self__", None)
        assert transport is not None
        transport.transport.abort()


async def _until(lines: AsyncIterator[bytes], hang_up: asyncio.Event) -> AsyncIterator[bytes]:
    """`lines` until somebody hangs up."""
    ended = asyncio.ensure_future(hang_up.wait())
    try:
        while True:
            step = asyncio.ensure_future(anext(lines, None))
            await asyncio.wait({step, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done() or (line := step.result()) is None:
                step.cancel()
                return
            yield line
    finally:
        ended.cancel()


def _selected(one: Object, selector: str | None) -> bool:
    labels = one["metadata"].get("labels", {})
    pairs = [pair.split("=") for pair in selector.split(",")] if selector else []
    return all(labels.get(key) == value for key, value in pairs)


def _status(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
        "reason": REASONS.get(code, "InternalError"), "code": code,
    }  # fmt: skip
    return JSONResponse(body, status_code=code, headers=headers)
