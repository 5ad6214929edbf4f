"""The sandbox: plays idibu's web services over real HTTP, remembers everything, and fails when told to.

It behaves as docs/idibu.md says idibu does, and is as strict as the documents allow, so that what passes here has a
chance there. It runs as an application (`create_app`), inside a test's event loop (`running`) or for a person (`serve`).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from apptrack_ingest.idibu import (
    applicants,
    jobs,
    sandbox_applicants,
    sandbox_endpoint,
    sandbox_jobs,
    sandbox_service,
    service_management,
    xml,
)
from apptrack_ingest.idibu import sandbox_store as store
from apptrack_ingest.idibu.accounts import Partner
from apptrack_ingest.idibu.client import PATH
from apptrack_ingest.idibu.sandbox_answers import Said, date, render
from apptrack_ingest.idibu.sandbox_applicants import NEW_APPLICANTS, NewApplicant
from apptrack_ingest.idibu.sandbox_endpoint import Call
from apptrack_ingest.idibu.sandbox_jobs_asked import DEFAULT_BOARDS, BoardRules
from apptrack_ingest.idibu.sandbox_requests import form, taken_up
from apptrack_ingest.idibu.sandbox_script import STEPS, Fault, Script, Step
from apptrack_ingest.idibu.sandbox_server import serving
from apptrack_ingest.idibu.sandbox_service import Rules
from apptrack_ingest.idibu.sandbox_world import Account, Accounts, Arrived, Change, Job

DEFAULT_HASHES = {"sandbox": "default"}
"""The one account of a sandbox that was told of no other: its hash is no secret."""

DEFAULT_PARTNER = Partner(1, SecretStr("sandbox"))
"""The partner of a sandbox that was told of no other: its password is no secret either."""

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
    `clock` gives epoch seconds; a wrong hash is answered with `failed` under `wrong_hash_status`. `partner` may manage the
    accounts, within `rules`; `boards` are those that jobs can be posted to. `base_url` is set while it runs. `script` and
    `store` may be used directly from the same event loop.
    """

    def __init__(
        self,
        hashes: Mapping[str, str] | None = None,
        file: Path | None = None,
        clock: Callable[[], float] = time.time,
        wrong_hash_status: int = 200,
        partner: Partner = DEFAULT_PARTNER,
        rules: Rules | None = None,
        boards: Mapping[int, BoardRules] = DEFAULT_BOARDS,
    ) -> None:
        self.hashes = dict(hashes or DEFAULT_HASHES)
        self.store = store.Store(file)
        self.script = Script()
        self.wrong_hash_status = wrong_hash_status
        self.rules = rules or Rules()
        self.boards = boards
        self.base_url = ""
        self._accounts = Accounts(self.store.world, self.hashes, partner)
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

    def accounts(self) -> list[Account]:
        """All accounts, given or created."""
        return self._accounts.all()

    def jobs(self, account: str | None = None) -> list[Job]:
        """What is held of jobs, of all accounts or one."""
        return [job for job in self.store.world.jobs.values() if account in (None, job.account)]

    def arrive(self, *new: NewApplicant) -> None:
        """Applicants reach idibu; their mails are somebody else's business."""
        now = self._clock()
        arrived = tuple(
            Arrived(one.account, one.id, now if one.date is None else one.date, one.email, one.name, one.reference)
            for one in new
        )
        told = f"{len(arrived)} applicants reached idibu"
        self.store.add(
            store.Request(now, "POST", "/sandbox/arrived", "", None, None, told, 200, change=Change(arrived=arrived))
        )

    async def wait_until(self, condition: Callable[["Sandbox"], bool], timeout: float = 10.0) -> None:
        """Returns once `condition` holds, asked anew after every request. Raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    def stop(self) -> None:
        """Lets hanging requests go, for the server to end."""
        self._stopping.set()

    # --- idibu's endpoints --------------------------------------------------------------------------------------------

    async def endpoint(self, request: Request) -> Response:
        """Applicant status."""

        def taken_apart(form: Mapping[str, str]) -> Call:
            account = self._account(request.query_params.get("hash", ""))
            asked = request.query_params.get("id") if request.method != "POST" else None
            applicant = request.path_params.get("applicant", asked)
            path = request.url.path
            return Call(request.method, path, request.query_params, account, applicant, form.get("data"), form=form)

        def judge(call: Call) -> Said:
            return sandbox_endpoint.judge(call, self.store, self._clock())

        return await self._exchange(request, taken_apart, judge)

    async def applicants_endpoint(self, request: Request) -> Response:
        """The list of applicants."""

        def taken_apart(form: Mapping[str, str]) -> Call:
            account = self._account(request.query_params.get("hash", ""))
            path = request.url.path
            return Call(request.method, path, request.query_params, account, None, None, applicants.CALL, form)

        return await self._exchange(request, taken_apart, lambda call: sandbox_applicants.judge(call, self.store))

    async def service_endpoint(self, request: Request) -> Response:
        """Service management."""
        params = request.query_params

        def taken_apart(form: Mapping[str, str]) -> Call:
            data = params.get("data") if request.method == "GET" else form.get("data")
            account = sandbox_service.account_of(data or "", self._accounts)
            name = request.path_params["name"]
            return Call(request.method, request.url.path, params, account, None, data, name, form)

        judge = partial(sandbox_service.judge, accounts=self._accounts, rules=self.rules)
        return await self._exchange(request, taken_apart, judge)

    async def jobs_endpoint(self, request: Request) -> Response:
        """Jobs."""
        account = self._accounts.by_hash(request.path_params["hash"])

        def taken_apart(form: Mapping[str, str]) -> Call:
            data, name = form.get("xml_text"), account.username if account else None
            method = sandbox_jobs.method_of(data)
            return Call(request.method, f"{jobs.PATH}****", {}, name, None, data, method, form)

        def judge(call: Call) -> Said:
            return sandbox_jobs.judge(call, account, self.store.world, self.boards, self._clock())

        return await self._exchange(request, taken_apart, judge)

    async def _exchange(
        self, request: Request, taken_apart: Callable[[Mapping[str, str]], Call], judge: Callable[[Call], Said]
    ) -> Response:
        """Answers one request: judge it, let the script interfere, remember it, answer."""
        try:
            call = taken_apart(await form(request))
        except ClientDisconnect:
            return Response()
        step = self.script.take(call.applicant_id, call.name)
        said = self._interfered(step, judge(call))
        self._remember(call, step, said)
        return await self._answer(request, call, step, said)

    def _account(self, hash: str) -> str | None:
        found = self._accounts.by_hash(hash)
        return found.username if found else None

    # --- misbehaving, remembering, answering --------------------------------------------------------------------------

    def _interfered(self, step: Step, said: Said) -> Said:
        slow = step.fault is Fault.HANG and step.seconds is not None
        if not (step.saves or slow or step.fault is None):
            said = replace(said, saved=None, change=None)
        if step.fault not in (Fault.FAILED, Fault.UNAUTHORIZED):
            return said
        words = xml.clean(step.text, xml.MAX_BYTES) if step.fault is Fault.FAILED else "Invalid hash"
        return replace(said, succeeded=False, message=words, applicants=(), content=())

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
                data=_kept(call),
                answer=str(said) if answered else f"fault: {step.fault}",
                http_status=None if silent else self._status(call, step),
                saved=said.saved,
                call=call.name,
                change=said.change,
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
            accounts=sorted({*self.hashes.values(), *(account.username for account in self.accounts())}),
            jobs=self.jobs(),
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

    async def accounts_json(self, _request: Request) -> Response:
        """All accounts, without their hashes."""
        return JSONResponse([asdict(account) for account in self.accounts()], headers=_HEADERS)

    async def jobs_json(self, _request: Request) -> Response:
        """All jobs."""
        return JSONResponse([asdict(job) for job in self.jobs()], headers=_HEADERS)

    async def requests_json(self, request: Request) -> Response:
        """All requests, or with `?applicant=` those about one."""
        wanted = request.query_params.get("applicant", "")
        found = self.requests(int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 19 else None)
        return JSONResponse([asdict(one) for one in found], headers=_HEADERS)

    async def script_json(self, request: Request) -> Response:
        """The script; a POST of JSON replaces it. (Demanding the type keeps pages of other origins from doing so.)"""
        refusal = await taken_up(request, lambda body: self.misbehave(*STEPS.validate_json(body)))
        return refusal or Response(
            STEPS.dump_json(self.script.remaining()), media_type="application/json", headers=_HEADERS
        )

    async def arrived_json(self, request: Request) -> Response:
        """The applicants that reached idibu; a POST of JSON adds some."""
        refusal = await taken_up(request, lambda body: self.arrive(*NEW_APPLICANTS.validate_json(body)))
        return refusal or JSONResponse([asdict(one) for one in self.store.world.arrived.values()], headers=_HEADERS)


def create_app(sandbox: Sandbox) -> Starlette:
    """The sandbox as an ASGI application. (Under another server than ours the fault `close` answers instead.)"""
    return Starlette(
        routes=[
            Route(PATH, sandbox.endpoint, methods=["GET", "POST"]),
            Route(PATH + "/{applicant}", sandbox.endpoint, methods=["GET", "POST"]),
            Route(applicants.PATH, sandbox.applicants_endpoint, methods=["GET", "POST"]),
            Route(service_management.PATH + "/{name}", sandbox.service_endpoint, methods=["GET", "POST"]),
            Route(jobs.PATH + "{hash:path}", sandbox.jobs_endpoint, methods=["GET", "POST"]),
            Route("/", sandbox.page),
            Route("/sandbox/accounts", sandbox.accounts_json),
            Route("/sandbox/jobs", sandbox.jobs_json),
            Route("/sandbox/applicants", sandbox.applicants_json),
            Route("/sandbox/requests", sandbox.requests_json),
            Route("/sandbox/arrived", sandbox.arrived_json, methods=["GET", "POST"]),
            Route("/sandbox/script", sandbox.script_json, methods=["GET", "POST"]),
        ]
    )


@contextlib.asynccontextmanager
async def running(sandbox: Sandbox | None = None, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Sandbox]:
    """Serves a sandbox from this event loop, on a free port unless one is named. Raises OSError when it cannot listen."""
    sandbox = sandbox or Sandbox()
    try:
        async with serving(create_app(sandbox), host, port, sandbox.stop) as url:
            sandbox.base_url = url
            yield sandbox
    finally:
        sandbox.store.close()


async def serve(
    host: str, port: int, file: Path | None, hashes: Mapping[str, str] | None, ready: Callable[[str], object]
) -> None:
    """Runs a sandbox until cancelled; `ready` is called with its base URL. Signals are the caller's."""
    async with running(Sandbox(hashes, file), host, port) as sandbox:
        ready(sandbox.base_url)
        await asyncio.Event().wait()


def _kept(call: Call) -> str | None:
    """What is remembered of the data: where secrets may stand in it, they are masked."""
    is_service = call.path.startswith(service_management.PATH)
    return sandbox_service.masked(call.data) if is_service and call.data else call.data


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
