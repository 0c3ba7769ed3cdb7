"""A web application that starts workflows and says how they are: one client for all requests, answers at once.

    runtara dev examples/orders.py
    uvicorn web_app:app --app-dir examples
    curl -X POST localhost:8000/orders -H 'Idempotency-Key: o-1' -d '{"order_ids": ["a", "b"]}'
    curl localhost:8000/orders/o-1

The caller's Idempotency-Key is the instance's id, so a request that is sent twice starts one instance. Nothing is lost
if this process dies: it holds no state. Needs starlette and uvicorn; FastAPI would look the same.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orders import orders
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from runtara.sdk import (
    BadInput,
    Client,
    IllegalTransition,
    InstanceNotFound,
    NotConfirmed,
    RuntaraError,
    StartConflict,
    Unavailable,
    UnknownWorkflow,
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Client]]:
    """The client connects when the application starts, and is every request's `request.state.client`."""
    async with Client(actor="web") as client:
        yield {"client": client}


async def place(request: Request) -> JSONResponse:
    """202: the platform has the order, whatever happens to this process now. The same again has no other effect."""
    arguments = orders.arguments(await request.body())
    id = request.headers.get("Idempotency-Key", "")
    handle = await request.state.client.start(orders, **arguments, id=id)
    return JSONResponse({"id": handle.id}, 202, headers={"Location": f"/orders/{handle.id}"})


async def show(request: Request) -> JSONResponse:
    client = request.state.client
    view = await client.with_values(await client.get(request.path_params["id"]))
    answer = {"id": view.id, "status": view.status, "result": json.loads(bytes(view.result))}
    return JSONResponse(answer | ({"error": view.error.message} if view.error else {}))


async def cancel(request: Request) -> JSONResponse:
    """202: it ends after the step that runs now."""
    status = await request.state.client.cancel(request.path_params["id"], reason="by request")
    return JSONResponse({"id": request.path_params["id"], "status": status}, 202)


# The nearest class of an error counts, and its text says what to do.
CODES: dict[type[RuntaraError], int] = {
    BadInput: 400,
    InstanceNotFound: 404,
    StartConflict: 409,
    IllegalTransition: 409,
    NotConfirmed: 202,  # the journal has it: it will be carried out
    UnknownWorkflow: 503,  # no worker has registered it yet
    Unavailable: 503,
    RuntaraError: 500,
}


async def on_error(request: Request, error: Exception) -> JSONResponse:
    code = next(CODES[cls] for cls in type(error).__mro__ if cls in CODES)
    return JSONResponse({"error": type(error).__name__, "message": str(error)}, code)


app = Starlette(
    routes=[
        Route("/orders", place, methods=["POST"]),
        Route("/orders/{id}", show, methods=["GET"]),
        Route("/orders/{id}", cancel, methods=["DELETE"]),
    ],
    exception_handlers={RuntaraError: on_error},
    lifespan=lifespan,
)
