"""For those who write handlers, and for our own tests: builders, fakes that remember everything, and the contract suite."""

import asyncio
import base64
import hashlib
import json
import mimetypes
import threading
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import uvloop

from apptrack_ingest.handoff import Done, Outcome, close, run
from apptrack_ingest.handoff import running as hand_off
from apptrack_ingest.handoff.forgetting import can_forget, forget
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_script import Fault, Quirk, Step
from apptrack_ingest.idibu.sandbox_store import Applicant
from apptrack_ingest.idibu.sandbox_store import Request as HeardRequest
from apptrack_ingest.model import (
    Accepted,
    Application,
    Candidate,
    Document,
    Duplicate,
    Hint,
    Job,
    Owner,
    Person,
    Previous,
    Role,
    Source,
    Verdict,
)

T = TypeVar("T")

__all__ = [
    "A_MOMENT",
    "A_PDF",
    "BAD_DOCUMENTS",
    "FakeAts",
    "Fault",
    "HandlerContract",
    "Held",
    "Quirk",
    "RecordingHandler",
    "Request",
    "ScriptedIdibu",
    "Step",
    "a_document",
    "a_hostile_application",
    "an_application",
    "an_email",
]

A_PDF = (
    b"%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n"
    b"3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]>>\nendobj\ntrailer\n<</Root 1 0 R>>\n%%EOF\n"
)
"""A very small PDF, recognised as one."""
A_MOMENT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)

# --- builders ---------------------------------------------------------------------------------------------------------


def a_document(name: str = "Jane Doe CV.pdf", content: bytes = A_PDF, **overrides: Any) -> Document:
    """A document of that name and content; whatever else is not given fits them."""
    guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
    values: dict[str, Any] = {
        "name": name,
        "original_name": name,
        "claimed_type": guessed,
        "sniffed_type": "application/pdf" if content.startswith(b"%PDF") else None,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "role": Role.CV,
        "why": "its name says so",
        "content": content,
    }
    return Document(**(values | overrides))


def an_application(**overrides: Any) -> Application:
    """An application with nothing missing; any field can be given.

    Its idempotency key follows from its content: another text or document makes it an update, another attempt does not.
    """
    values: dict[str, Any] = {
        "account": "default",
        "applicant_id": 40809163,
        "attempt": 1,
        "received_at": A_MOMENT,
        "client_reference": "VAC-1042",
        "candidate": Candidate(
            "Jane Doe", "jane.doe@example.com", "From", (Hint("phone", "+44 20 7946 0123", "text"),)
        ),
        "job": Job(37068825, "Senior .Net Developer", "JO-1502-428583", "2 Permanent"),
        "source": Source(338, "Seek", 38504886),
        "owner": Owner(3007241, "Kara Smith", "karas@idibu.com", "New Zealand", "AUK JS Uploads"),
        "subject": "Application for Senior .Net Developer",
        "text": "Dear Kara,\n\nplease find my CV attached.\n\nJane Doe\n+44 20 7946 0123\n",
        "html": "<p>Dear Kara,</p><p>please find my CV attached.</p>",
        "documents": (a_document(),),
        "headers": (("Subject", "Application for Senior .Net Developer"), ("X-iTrackID", "40809163")),
        "raw": b"Subject: Application for Senior .Net Developer\r\nX-iTrackID: 40809163\r\n\r\nDear Kara\r\n",
    } | overrides
    values.setdefault("idempotency_key", _key_of(values))
    return Application(**values)


def _key_of(values: Mapping[str, Any]) -> str:
    content = [values[key] for key in ("account", "applicant_id", "subject", "text", "client_reference")]
    content += [document.sha256 for document in values["documents"]]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def an_email(
    applicant_id: int | str | None = 40809163,
    *,
    name: str | None = "Jane Doe",
    address: str = "jane.doe@example.com",
    client_reference: str | None = "VAC-1042",
    subject: str = "Application for Senior .Net Developer",
    text: str | None = "Dear Kara,\n\nplease find my CV attached.\n\nJane Doe\n+44 20 7946 0123\n",
    html: str | None = None,
    documents: Sequence[Document] | None = None,
    date: datetime = A_MOMENT,
    headers: Mapping[str, str | None] | None = None,
) -> bytes:
    """An application as AppTrack forwards it: the bytes of a mail with CRLF, addressed to the consultant, not to us.

    Without `documents` it has a CV. `headers` replaces or adds headers, and removes those that are None;
    `applicant_id` None leaves X-iTrackID out, `name` None stands for a candidate whose name AppTrack does not know.
    """
    values = _metadata(applicant_id, client_reference) | {
        "From": formataddr((name or "No_name", address)),
        "To": "Kara Smith <karas@idibu.com>",
        "Subject": subject,
        "Date": format_datetime(date),
        "Message-ID": f"<{applicant_id}.38504886@idibu.aptrack.co.uk>",
    }
    mail = EmailMessage(policy=SMTP)
    for header, value in (values | dict(headers or {})).items():
        if value is not None:
            mail[header] = value
    _add_content(mail, text, html, (a_document(),) if documents is None else documents)
    return mail.as_bytes()


def _metadata(applicant_id: int | str | None, client_reference: str | None) -> dict[str, str | None]:
    """Names and values as idibu documents them, below the trace of the mail server that sent them."""
    return {
        "Received": "from mail.idibu.com (mail.idibu.com [192.0.2.10]) by mx.example.net; Mon, 2 Mar 2026 09:30:00 +0000",
        "X-iTrackID": None if applicant_id is None else str(applicant_id),
        "X-iTrackID-ClientReference": client_reference,
        "X-iTrackID-PortalID": "338",
        "X-iTrackID-Portal-Name": "Seek",
        "X-iTrackID-ClientSettingsID": "3007241",
        "X-iTrackID-ClientSettings-Name": "Kara Smith (karas@idibu.com)",
        "X-iTrackID-Office": "New Zealand",
        "X-iTrackID-Team": "AUK JS Uploads",
        "X-iTrackID-PostLogID": "38504886",
        "X-iTrackID-JobID": "37068825",
        "X-iTrackID-Title": "Senior .Net Developer",
        "X-iTrackID-Reference": "JO-1502-428583",
        "X-iTrackID-Type": "2 Permanent",
    }


def _add_content(mail: EmailMessage, text: str | None, html: str | None, documents: Sequence[Document]) -> None:
    if text is not None or html is None:
        mail.set_content(text or "")
        if html is not None:
            mail.add_alternative(html, subtype="html")
    else:
        mail.set_content(html, subtype="html")
    for document in documents:
        kind, _, subtype = document.claimed_type.partition("/")
        mail.add_attachment(document.content, kind, subtype, filename=document.original_name)


# --- fakes that remember ----------------------------------------------------------------------------------------------


class RecordingHandler:
    """A handler that remembers every application it was given in `applications`.

    `script` says what to do with the first, the second, …: return a verdict, or raise an exception. After that each is
    accepted as `remote-<applicant id>`.
    """

    def __init__(self, *script: Verdict | BaseException) -> None:
        self.applications: list[Application] = []
        self._script = deque(script)

    async def handle(self, application: Application) -> Verdict:
        """Remember, and do as the script says."""
        self.applications.append(application)
        step = self._script.popleft() if self._script else Accepted(f"remote-{application.applicant_id}")
        if isinstance(step, BaseException):
            raise step
        return step


@dataclass(frozen=True)
class Held:
    """A candidate as an ATS holds it: `documents` are the SHA-256 (hex) of its documents, None where nobody can tell."""

    applicant_id: int
    documents: frozenset[str] | None = None


@dataclass(frozen=True)
class Request:
    """An HTTP request as it came in; `headers` by lower-case name."""

    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class FakeAts:
    """An ATS on loopback that speaks real HTTP, for the webhook handler and others like it; use it with `with`.

    It keeps one candidate for each account and applicant, answers 200 with `{"remote_id": …}`, or 409 when it has this
    very application already, and remembers every request in `requests`. `answers` takes what to answer next instead:
    (status, headers, body), or "stall" for not answering before `released` is set.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: deque[tuple[int, dict[str, str], bytes] | str] = deque()
        self.released = threading.Event()
        self._held: dict[tuple[str, int], tuple[str, Held]] = {}
        self._lock = threading.Lock()
        ats = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                with suppress(ConnectionError):
                    ats._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are remembered, not printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/applications"

    def __enter__(self) -> "FakeAts":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def held(self) -> list[Held]:
        """The candidates it holds now."""
        with self._lock:
            return [held for _, held in self._held.values()]

    def _answer(self, connection: BaseHTTPRequestHandler) -> None:
        length = int(connection.headers.get("content-length", "0"))
        body = connection.rfile.read(length)
        if len(body) < length:
            return  # the client went away in the middle
        headers = {name.lower(): value for name, value in connection.headers.items()}
        request = Request(connection.path, headers, body)
        with self._lock:
            self.requests.append(request)
            scripted = self.answers.popleft() if self.answers else None
        if scripted == "stall":
            self.released.wait(60)
        status, extra, answer = scripted if isinstance(scripted, tuple) else self._keep(request)
        connection.send_response(status)
        for name, value in (extra | {"Content-Length": str(len(answer))}).items():
            connection.send_header(name, value)
        connection.end_headers()
        connection.wfile.write(answer)

    def _keep(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        application, documents = _read(request)
        candidate = (application["account"], application["applicant_id"])
        held = Held(
            application["applicant_id"], frozenset(hashlib.sha256(content).hexdigest() for content in documents)
        )
        with self._lock:
            known = self._held.get(candidate)
            duplicate = known is not None and known[0] == application["idempotency_key"]
            self._held[candidate] = (application["idempotency_key"], held)
        answer = json.dumps({"remote_id": f"ats-{application['applicant_id']}"}).encode()
        return 409 if duplicate else 200, {"Content-Type": "application/json"}, answer


def _read(request: Request) -> tuple[dict[str, Any], list[bytes]]:
    """The application and its documents, from either format of the webhook handler."""
    kind, _, boundary = request.headers["content-type"].partition("boundary=")
    if not kind.startswith("multipart/"):
        application = json.loads(request.body)
        return application, [base64.b64decode(document["content"]) for document in application["documents"]]
    parts = (b"\r\n" + request.body).split(b"\r\n--" + boundary.encode())[1:-1]
    contents = [part.partition(b"\r\n\r\n")[2] for part in parts]
    return json.loads(contents[0]), contents[1:]


class ScriptedIdibu:
    """idibu's sandbox over real HTTP in a thread of its own, as a context manager; it remembers what it was told.

    `base_url` is where it listens; `misbehave(Step(...), ...)` scripts faults and quirks for the next requests;
    `applicants()` and `requests()` are what it holds and heard (docs/sandbox.md). `hashes` maps each hash it takes to an
    account's name; `file` keeps it all beyond the process.
    """

    def __init__(self, hashes: Mapping[str, str] | None = None, file: Path | None = None) -> None:
        self._sandbox = Sandbox(dict(hashes) if hashes else None, file)
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="scripted idibu", daemon=True)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with running(self._sandbox):
                self._started.set()
                await self._stop.wait()
        finally:
            self._started.set()

    def __enter__(self) -> "ScriptedIdibu":
        self._thread.start()
        self._started.wait()
        if not self.base_url:
            raise OSError("the scripted idibu could not listen on 127.0.0.1")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def base_url(self) -> str:
        """Its root, for `idibu.base_url`."""
        return self._sandbox.base_url

    def misbehave(self, *steps: Step) -> None:
        """Replaces the script: each step applies to so many of the next requests; without steps it behaves."""
        self._sandbox.misbehave(*steps)

    def applicants(self, account: str | None = None) -> list[Applicant]:
        """What it holds of each applicant."""
        return list(self._sandbox.applicants(account))

    def requests(self, applicant_id: int | None = None) -> list[HeardRequest]:
        """Every request it heard, oldest first."""
        return list(self._sandbox.requests(applicant_id))


# --- the contract suite -----------------------------------------------------------------------------------------------


class HandlerContract:
    """What every handler promises, as tests for pytest. Subclass it, give it a handler, and say what the ATS holds:

        class TestMine(HandlerContract):
            @pytest.fixture
            def handler(self, tmp_path):
                self.ats = ...
                return Mine(Mine.Settings(...))

            def candidates(self):
                return [Held(candidate.idibu_id) for candidate in self.ats]

    The suite runs the handler as the product does, in an event loop of its own for each test, and closes it after.
    """

    patience = 30.0
    """Seconds that one hand-off may take."""

    def candidates(self) -> Sequence[Held]:
        """What the ATS holds now, of all that the tests handed over."""
        raise NotImplementedError("say what your ATS holds")

    def test_an_application_becomes_a_candidate(self, handler: Any) -> None:
        self._play(handler, self._taken(handler, an_application()))
        self._assert_held(an_application())

    def test_the_same_application_twice_leaves_one_candidate(self, handler: Any) -> None:
        async def scenario() -> None:
            first = await self._taken(handler, an_application())
            second = await self._taken(handler, an_application(attempt=2))
            assert None in (first, second) or first == second, "the same application got two remote ids"

        self._play(handler, scenario())
        self._assert_held(an_application())

    def test_the_same_application_twice_at_a_time_leaves_one_candidate(self, handler: Any) -> None:
        """A lease can run out while its worker is still at it; one of the two may be told to come again."""

        async def scenario() -> None:
            await asyncio.gather(*(run(handler, an_application(), self.patience) for _ in range(2)))
            await self._taken(handler, an_application(attempt=2))

        self._play(handler, scenario())
        self._assert_held(an_application())

    def test_an_update_replaces_what_was_there(self, handler: Any) -> None:
        newer = a_document("Jane Doe CV 2.pdf", A_PDF + b"% newer"), a_document("Letter.txt", b"Dear Kara")

        async def scenario() -> None:
            remote_id = await self._taken(handler, an_application())
            update = an_application(documents=newer, previous=Previous(remote_id, A_MOMENT))
            await self._taken(handler, update)

        self._play(handler, scenario())
        self._assert_held(an_application(documents=newer))

    def test_two_applicants_are_two_candidates(self, handler: Any) -> None:
        one, other = an_application(applicant_id=1), an_application(applicant_id=2)

        async def scenario() -> None:
            await self._taken(handler, one)
            await self._taken(handler, other)

        self._play(handler, scenario())
        self._assert_held(one)
        self._assert_held(other)

    def test_everything_optional_may_be_missing(self, handler: Any) -> None:
        bare = Application("default", 40809163, idempotency_key="bare", attempt=1, received_at=A_MOMENT)
        self._play(handler, self._taken(handler, bare))
        self._assert_held(bare)

    def test_a_bad_document_does_not_cost_the_candidate(self, handler: Any) -> None:
        application = an_application(documents=BAD_DOCUMENTS)
        self._play(handler, self._taken(handler, application))
        self._assert_held(application)

    def test_hostile_text_does_no_harm(self, handler: Any) -> None:
        application = a_hostile_application()
        self._play(handler, self._taken(handler, application))
        self._assert_held(application)

    def test_after_a_timeout_it_can_be_repeated(self, handler: Any) -> None:
        async def scenario() -> None:
            for timeout in (0.0, 0.001, 0.01, 0.1):
                outcome = await _ended(run(handler, an_application(), timeout))
                assert isinstance(outcome, Done) or outcome.code == "timeout", f"{outcome.code}: {outcome.detail}"
            await self._taken(handler, an_application(attempt=5))

        self._play(handler, scenario())
        self._assert_held(an_application())

    def test_cancelled_anywhere_it_can_be_repeated(self, handler: Any) -> None:
        async def scenario() -> None:
            for steps in (0, 1, 2, 3, 5, 10, 50):
                await _cancel_after(steps, asyncio.ensure_future(run(handler, an_application(), self.patience)))
            await self._taken(handler, an_application(attempt=8))

        self._play(handler, scenario())
        self._assert_held(an_application())

    def _play(self, handler: Any, scenario: Coroutine[Any, Any, Any]) -> None:
        async def play() -> None:
            try:
                await scenario
            finally:
                await close(handler)

        uvloop.run(play())

    async def _taken(self, handler: Any, application: Application) -> str | None:
        outcome = await run(handler, application, self.patience)
        assert isinstance(outcome, Done), f"no verdict, but {outcome.code}: {outcome.detail}"
        assert isinstance(outcome.verdict, Accepted | Duplicate), f"not taken: {outcome.verdict}"
        return outcome.verdict.remote_id

    def _assert_held(self, application: Application) -> None:
        held = [candidate for candidate in self.candidates() if candidate.applicant_id == application.applicant_id]
        assert len(held) == 1, f"the ATS holds {len(held)} candidates for applicant {application.applicant_id}"
        expected = {document.sha256 for document in application.documents}
        assert held[0].documents in (None, expected), "the ATS does not hold the application's documents"


class ForgettingContract(HandlerContract):
    """The same for a handler that can forget: subclass this one instead, and it must also erase a person."""

    def test_a_person_is_forgotten_and_nobody_else(self, handler: Any) -> None:
        jane, john = (
            an_application(),
            an_application(applicant_id=2, candidate=Candidate("John Roe", "john@example.org")),
        )

        async def scenario() -> None:
            await self._taken(handler, john)
            remote_id = await self._taken(handler, jane)
            person = Person(jane.account, A_PERSON, (jane.applicant_id,), (remote_id,) if remote_id else ())
            assert await self._forgotten(handler, person) >= 1, "it says that it erased nothing"
            assert await self._forgotten(handler, person) == 0, "it says that it erased what was gone already"

        self._play(handler, scenario())
        assert [held.applicant_id for held in self.candidates()] == [john.applicant_id]
        self._assert_held(john)

    def test_a_person_is_found_by_the_address_alone(self, handler: Any) -> None:
        """The ids may be gone from the spool long before; capitals do not matter."""

        async def scenario() -> None:
            await self._taken(handler, an_application())
            assert await self._forgotten(handler, Person(an_application().account, A_PERSON.upper())) >= 1

        self._play(handler, scenario())
        assert not self.candidates()

    def test_one_who_was_forgotten_can_apply_again(self, handler: Any) -> None:
        async def scenario() -> None:
            await self._taken(handler, an_application())
            await self._forgotten(handler, Person(an_application().account, A_PERSON))
            await self._taken(handler, an_application())

        self._play(handler, scenario())
        self._assert_held(an_application())

    async def _forgotten(self, handler: Any, person: Person) -> int:
        assert can_forget(handler), "it has no `forget`: use HandlerContract"
        return await forget(handler, person, self.patience)


A_PERSON = "jane.doe@example.com"
"""The candidate of `an_application`."""


async def _cancel_after(steps: int, task: "asyncio.Future[Outcome]") -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await _ended(asyncio.wait({task}))


async def _ended(handing_over: Coroutine[Any, Any, T]) -> T:
    """What came of it; a handler that had to be left to itself, since it does not end when cancelled, has failed."""
    started = time.monotonic()
    result = await handing_over
    assert time.monotonic() - started < hand_off.CANCEL_GRACE, "the handler does not end when it is cancelled"
    return result


BAD_DOCUMENTS = (
    a_document("empty.pdf", b"", sniffed_type=None),
    a_document("name.doc", b"\xd0\xcf\x11\xe0", original_name="../../etc/passwd\0" + "x" * 5000 + ".doc"),
    a_document("no type", b"MZ\x90\0\r\n--\r\n", original_name=None, claimed_type='not a type; "x', role=Role.OTHER),
    a_document("résumé 履歴書.pdf", A_PDF, claimed_type="application/octet-stream"),
    a_document("copy.pdf", A_PDF, claimed_type="image/png"),
    a_document("a" * 120 + ".txt", b"\xff\xfe\0" * 100_000, role=Role.OTHER),
)
"""Documents as the mails of this world bring them; their `name` is safe, as it always is, nothing else is."""


def a_hostile_application() -> Application:
    """An application whose every text was written by somebody who means harm, or by a broken mail program."""
    hostile = (
        "../../etc/passwd\0\r\nX-Injected: yes\r\n\r\n<script>alert(1)</script>$(reboot)`id`';--\u202e\ud800\U0001f480"
    )
    return an_application(
        idempotency_key="hostile",
        client_reference=hostile,
        candidate=Candidate(hostile, hostile, hostile, (Hint(hostile, hostile, hostile),)),
        job=Job(-1, hostile, hostile, hostile),
        source=Source(2**70, hostile, 0),
        owner=Owner(0, hostile, hostile, hostile, hostile),
        subject=hostile * 50,
        text=hostile * 5000,
        html=hostile * 5000,
        warnings=(hostile,),
        headers=((hostile, hostile),),
        raw=b"\0\xff\r.\n" * 1000,
    )
