"""The sandbox: plays idibu's applicant-status service over real HTTP, remembers everything, and fails when told to.

It behaves as docs/idibu.md says idibu does, and is as strict as the documents allow, so that what passes here has a
chance there. It runs as an application (`create_app`), inside a test's event loop (`running`) or for a person (`serve`).
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from apptrack_ingest.idibu import sandbox_store as store
from apptrack_ingest.idibu import xml
from apptrack_ingest.idibu.client import PATH
from apptrack_ingest.idibu.sandbox_answers import Said, date, render
from apptrack_ingest.idibu.sandbox_endpoint import Call, judge
from apptrack_ingest.idibu.sandbox_script import STEPS, Fault, Script, Step

DEFAULT_HASHES = {"sandbox": "default"}
"""The one account of a sandbox that was told of no other: its hash is no secret."""

_FORM = "application/x-www-form-urlencoded"
_ROWS = 500  # on the page; the JSON has all
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PROXY_PAGE = "<!DOCTYPE html><html><head><title>Proxy</title></head><body><p>Please try again<br></body></html>"


class Sandbox:
    """An idibu of one's own, with what it was told and what it is to do wrong.

    `hashes` maps each hash to the name of its account; `file` keeps everything told, over restarts (None: in memory);
    `clock` gives epoch seconds; a wrong hash is answered with `failed` under `wrong_hash_status`. `base_url` is set while
    it runs. `script` and `store` may be used directly from the same event loop.
    """

    def __init__(
        self,
        hashes: Mapping[str, str] | None = None,
        file: Path | None = None,
        clock: Callable[[], float] = time.time,
        wrong_hash_status: int = 200,
    ) -> None:
        self.hashes = dict(hashes or DEFAULT_HASHES)
        self.store = store.Store(file)
        self.script = Script()
        self.wrong_hash_status = wrong_hash_status
        self.base_url = ""
        self._clock = clock
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()

    def misbehave(self, *steps: Step) -> None:
        """Replaces the script; without steps the sandbox behaves again."""
        self.script.replace(steps)

    def applicants(self, account: str | None = None) -> list[store.Applicant]:
        """What is held, of all accounts or one."""
        return self.store.applicants(account)

    def requests(self, applicant_id: int | None = None) -> list[store.Request]:
        """Every request so far, or those about one applicant, in order."""
        return [request for request in self.store.requests if applicant_id in (None, request.applicant_id)]

    async def wait_until(self, condition: Callable[["Sandbox"], bool], timeout: float = 10.0) -> None:
        """Returns once `condition` holds, asked anew after every request. Raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    def stop(self) -> None:
        """Lets hanging requests go, for the server to end."""
        self._stopping.set()

    # --- idibu's endpoint ---------------------------------------------------------------------------------------------

    async def endpoint(self, request: Request) -> Response:
        """Answers one request: judge it, let the script interfere, remember it, answer."""
        try:
            call = await self._taken_apart(request)
        except ClientDisconnect:
            return Response()
        step = self.script.take(call.applicant_id)
        said = self._interfered(step, judge(call, self.store, self._clock()))
        self._remember(call, step, said)
        return await self._answer(request, call, step, said)

    async def _taken_apart(self, request: Request) -> Call:
        account = self.hashes.get(request.query_params.get("hash", ""))
        asked = request.query_params.get("id") if request.method != "POST" else None
        applicant = request.path_params.get("applicant", asked)
        is_form = request.method == "POST" and _media_type(request) == _FORM and _fits(request)
        data = (await request.form()).get("data") if is_form else None
        data = data if isinstance(data, str) else None
        return Call(request.method, request.url.path, request.query_params, account, applicant, data)

    # --- misbehaving, remembering, answering --------------------------------------------------------------------------

    def _interfered(self, step: Step, said: Said) -> Said:
        slow = step.fault is Fault.HANG and step.seconds is not None
        saved = said.saved if step.saves or slow or step.fault is None else None
        match step.fault:
            case Fault.FAILED:
                return Said(False, xml.clean(step.text, xml.MAX_BYTES), saved=saved)
            case Fault.UNAUTHORIZED:
                return Said(False, "Invalid hash", saved=saved)
            case _:
                return replace(said, saved=saved)

    def _status(self, call: Call, step: Step) -> int:
        plain = step.fault is None and step.status is None
        return self.wrong_hash_status if plain and call.account is None else step.http_status

    def _remember(self, call: Call, step: Step, said: Said) -> None:
        answered = step.fault is None or step.fault in (Fault.FAILED, Fault.UNAUTHORIZED)
        silent = step.fault is Fault.CLOSE or (step.fault is Fault.HANG and step.seconds is None)
        self.store.add(
            store.Request(
                at=self._clock(),
                method=call.method,
                path=call.path,
                account=call.account,
                applicant_id=call.applicant_id,
                data=call.data,
                answer=str(said) if answered else f"fault: {step.fault}",
                http_status=None if silent else self._status(call, step),
                saved=said.saved,
            )
        )
        self._news.set()

    async def _answer(self, request: Request, call: Call, step: Step, said: Said) -> Response:
        status = self._status(call, step)
        match step.fault:
            case Fault.ERROR:
                return PlainTextResponse("Internal Server Error", status)
            case Fault.HTML:
                return HTMLResponse(_PROXY_PAGE, status)
            case Fault.EMPTY:
                return Response(b"", status)
            case Fault.BUSY:
                headers = {} if step.retry_after is None else {"Retry-After": step.retry_after}
                return PlainTextResponse("Slow down", status, headers)
            case Fault.REDIRECT:
                return Response(b"", status, {"Location": quote(step.text, safe=":/?=&%")})
            case Fault.CLOSE:
                await _drop(request)
            case Fault.HANG:
                await self._hang(request, step.seconds)
        return Response(render(said, step.quirks), status, media_type="application/xml")

    async def _hang(self, request: Request, seconds: float | None) -> None:
        ends = {asyncio.ensure_future(_left(request)), asyncio.ensure_future(self._stopping.wait())}
        done, waiting = await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for end in waiting:
            end.cancel()
        if done:
            await _drop(request)

    # --- the sandbox's own pages --------------------------------------------------------------------------------------

    async def page(self, _request: Request) -> Response:
        """What is held, for people."""
        held = sorted(self.applicants(), key=lambda one: one.modified, reverse=True)
        html = _template().render(
            accounts=sorted(self.hashes.values()),
            applicants=held[:_ROWS],
            total=len(held),
            requests=self.store.requests[: -_ROWS - 1 : -1],
            total_requests=len(self.store.requests),
            steps=STEPS.dump_json(self.script.remaining(), exclude_defaults=True).decode(),
            date=date,
        )
        return HTMLResponse(html, headers=_HEADERS)

    async def applicants_json(self, _request: Request) -> Response:
        """All that is held, for programs."""
        return JSONResponse([asdict(held) for held in self.applicants()], headers=_HEADERS)

    async def requests_json(self, request: Request) -> Response:
        """All requests, or with `?applicant=` those about one."""
        wanted = request.query_params.get("applicant", "")
        found = self.requests(int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 19 else None)
        return JSONResponse([asdict(one) for one in found], headers=_HEADERS)

    async def script_json(self, request: Request) -> Response:
        """The script; a POST of JSON replaces it. (Demanding the type keeps pages of other origins from doing so.)"""
        if request.method == "POST":
            if _media_type(request) != "application/json":
                return PlainTextResponse("Content-Type must be application/json", 415)
            if not _fits(request):
                return PlainTextResponse("Content-Length must be there, and no more than 1 MB", 413)
            try:
                self.script.replace(STEPS.validate_json(await request.body()))
            except ValidationError as error:
                return JSONResponse(error.errors(include_url=False, include_input=False, include_context=False), 400)
        return Response(STEPS.dump_json(self.script.remaining()), media_type="application/json", headers=_HEADERS)


def create_app(sandbox: Sandbox) -> Starlette:
    """The sandbox as an ASGI application. (Under another server than ours the fault `close` answers instead.)"""
    return Starlette(
        routes=[
            Route(PATH, sandbox.endpoint, methods=["GET", "POST"]),
            Route(PATH + "/{applicant}", sandbox.endpoint, methods=["GET", "POST"]),
            Route("/", sandbox.page),
            Route("/sandbox/applicants", sandbox.applicants_json),
            Route("/sandbox/requests", sandbox.requests_json),
            Route("/sandbox/script", sandbox.script_json, methods=["GET", "POST"]),
        ]
    )


@contextlib.asynccontextmanager
async def running(sandbox: Sandbox | None = None, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Sandbox]:
    """Serves a sandbox from this event loop, on a free port unless one is named. Raises OSError when it cannot listen."""
    sandbox = sandbox or Sandbox()
    try:
        listening = await _bound(host, port)
        server = _server(sandbox)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await _first(server.accepting, serving)
        sandbox.base_url = _url(listening)
        try:
            yield sandbox
        finally:
            sandbox.stop()
            server.should_exit = True
            await serving
    finally:
        sandbox.store.close()


async def serve(
    host: str, port: int, file: Path | None, hashes: Mapping[str, str] | None, ready: Callable[[str], object]
) -> None:
    """Runs a sandbox until cancelled; `ready` is called with its base URL. Signals are the caller's."""
    async with running(Sandbox(hashes, file), host, port) as sandbox:
        ready(sandbox.base_url)
        await asyncio.Event().wait()


class _Server(uvicorn.Server):
    """uvicorn as a guest in somebody else's process: it takes no signals, and says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Protocol(H11Protocol):
    """Lets the application reach the connection, to break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def _server(sandbox: Sandbox) -> _Server:
    """No access log: the hash is in the URLs."""
    return _Server(
        uvicorn.Config(
            create_app(sandbox),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )


async def _bound(host: str, port: int) -> socket.socket:
    """A bound socket, made with IPPROTO_TCP: with protocol 0 asyncio leaves Nagle's delay on."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


async def _first(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Returns when the event is set; raises what the task raises before."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _media_type(request: Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _fits(request: Request) -> bool:
    """Whether the body says its length and is not too long (the server holds a client to what it said)."""
    return int(request.headers.get("Content-Length", "-1")) in range(xml.MAX_BYTES + 1)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _drop(request: Request) -> None:
    transport: Any = getattr(request.state, "transport", None)
    if transport is not None:
        transport.abort()
        await _left(request)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(loader=jinja2.PackageLoader("apptrack_ingest.idibu"), autoescape=True)
    return environment.get_template("sandbox.html")
