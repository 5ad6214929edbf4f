"""The digest says what waits, names nobody, and reaches real receivers; its failures leak nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from pydantic import SecretStr

from apptrack_ingest import settings
from apptrack_ingest.model import Backlog, HeldReason, PausedBy, ReportState, Stage, State
from apptrack_ingest.report.digest import MOST_ROWS, Digest, compose, deliver
from apptrack_ingest.spool.contract import Facts, Summary

NOW = 1_700_000_000.0
NOTHING = Backlog({}, {}, {}, {}, {}, {}, 0)
PERSONAL = ("Jane Doe", "jane@example.org", "Nurse at Acme Hospital", "no such job, dear Jane")


def row(number: int, **changes: Any) -> Summary:
    held = Summary(
        application_id=number,
        message_id=number,
        account="acme",
        applicant_id=33139609,
        state=State.HELD,
        reason=HeldReason.UNREADABLE,
        code="too-many-parts",
        detail=PERSONAL[3],
        facts=Facts(candidate_name=PERSONAL[0], candidate_email=PERSONAL[1], job_title=PERSONAL[2]),
        remote_id=None,
        received_at=NOW - 3 * 86400 - 4 * 3600,
        settled_at=NOW,
        due_at=None,
        attempts=1,
        in_work=False,
        duplicate_of=None,
        report=None,
    )
    return replace(held, **changes)


def troubled() -> Backlog:
    return Backlog(
        applications={
            ("acme", State.FAILED): 1,
            ("acme", State.HELD): 1,
            ("", State.HELD): 2,
            ("bolt", State.REJECTED): 4,
        },
        held={("acme", HeldReason.UNREADABLE): 1, ("", HeldReason.UNROUTED): 2},
        reports={("acme", ReportState.REFUSED): 3, ("bolt", ReportState.FAILED): 1},
        oldest_hand_off={},
        oldest_report={},
        paused={("bolt", Stage.REPORT): PausedBy.ITSELF},
        size_bytes=0,
    )


def digest() -> Digest:
    composed = compose(troubled(), [row(1)], NOW)
    assert composed is not None
    return composed


# --- composing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quiet",
    [
        NOTHING,
        replace(NOTHING, applications={("acme", State.RECEIVED): 9, ("acme", State.DELIVERED): 5}),
        replace(NOTHING, reports={("acme", ReportState.DUE): 2, ("acme", ReportState.CONFIRMED): 7}),
        replace(NOTHING, held={("acme", HeldReason.UNROUTED): 0}),
        replace(NOTHING, applications={("acme", State.REJECTED): 3}),
    ],
)
def test_nothing_that_waits_for_a_person_makes_no_digest(quiet: Backlog) -> None:
    assert compose(quiet, [], NOW) is None


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (replace(NOTHING, held={("acme", HeldReason.CRASH_LOOP): 1}), "1 held"),
        (replace(NOTHING, applications={("acme", State.FAILED): 2}), "2 failed"),
        (replace(NOTHING, reports={("acme", ReportState.REFUSED): 3}), "3 reports refused by idibu"),
        (replace(NOTHING, reports={("acme", ReportState.FAILED): 4}), "4 reports that did not reach idibu"),
        (replace(NOTHING, paused={("acme", Stage.REPORT): PausedBy.ITSELF}), "1 with reporting paused"),
    ],
)
def test_each_kind_of_trouble_makes_one(trouble: Backlog, words: str) -> None:
    composed = compose(trouble, [], NOW)
    assert composed is not None
    assert composed.subject == f"apptrack-ingest: {words}"
    assert "acme" in composed.text


def test_the_text_counts_by_account_and_names_the_applications() -> None:
    rows = [
        row(9, state=State.FAILED, reason=None, code="http-503", received_at=NOW - 7260),
        row(5),
        row(6, account=None, applicant_id=None, reason=HeldReason.UNROUTED, received_at=NOW - 120),
        row(7, state=State.DELIVERED, reason=None, report=ReportState.REFUSED, received_at=NOW - 60),
        row(8, state=State.DELIVERED, reason=None, report=ReportState.CONFIRMED),
    ]
    composed = compose(troubled(), rows, NOW)
    assert composed is not None
    assert "(no account)\n  held: unrouted 2\n" in composed.text
    assert "acme\n  held: unreadable 1\n  failed: 1\n  reports refused by idibu: 3\n" in composed.text
    assert "bolt\n  rejected by the handler: 4\n" in composed.text
    assert "reporting is paused" in composed.text
    named = [line.strip() for line in composed.text.splitlines() if ", applicant " in line]
    assert named == [
        "5: acme, applicant 33139609, held (unreadable), 3 d 4 h",
        "9: acme, applicant 33139609, failed (http-503), 2 h 1 min",
        "6: (no account), applicant none, held (unrouted), 2 min",
        "7: acme, applicant 33139609, report refused, 1 min",
    ]


def test_nothing_of_a_candidate_and_no_words_are_in_it() -> None:
    rows = [row(1), row(2, state=State.FAILED, reason=None, code=PERSONAL[3])]
    composed = compose(troubled(), rows, NOW)
    assert composed is not None
    everything = composed.subject + composed.text + json.dumps(composed.payload)
    assert not [personal for personal in PERSONAL if personal in everything]
    assert "failed (other)" in composed.text


def test_only_the_oldest_are_named_and_the_rest_counted() -> None:
    rows = [row(number, received_at=NOW - number) for number in range(1, MOST_ROWS + 11)]
    composed = compose(troubled(), rows, NOW)
    assert composed is not None
    assert composed.text.count(", applicant ") == MOST_ROWS == len(composed.payload["digest"]["applications"])
    assert "and 10 more" in composed.text
    assert composed.payload["digest"]["applications"][0]["id"] == MOST_ROWS + 10


def test_the_payload_suits_chats_and_programs() -> None:
    payload = json.loads(json.dumps(digest().payload))
    assert payload["text"].startswith("apptrack-ingest: 3 held, 1 failed, 4 rejected")
    assert payload["digest"]["at"] == "2023-11-14T22:13:20+00:00"
    assert payload["digest"]["accounts"]["acme"]["held"] == {"unreadable": 1}
    assert payload["digest"]["applications"] == [
        {
            "id": 1,
            "account": "acme",
            "applicant_id": 33139609,
            "state": "held",
            "code": "unreadable",
            "report": None,
            "age_seconds": 273600,
        }
    ]


# --- sending by webhook --------------------------------------------------------------------------------------------------

SECRET = "T0K3N-of-the-hook"


@dataclass
class Receiver:
    """A little HTTP server that answers as told and remembers every request's body."""

    answer: bytes
    port: int = 0
    bodies: tuple[bytes, ...] = ()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        self.bodies += (await reader.readexactly(length),)
        writer.write(self.answer)
        await writer.drain()
        if self.answer:
            writer.close()
        else:
            await reader.read()
            writer.close()

    def where(self) -> settings.Digest:
        return settings.Digest(webhook_url=SecretStr(f"http://127.0.0.1:{self.port}/hook/{SECRET}?hash={SECRET}"))


@asynccontextmanager
async def receiver(answer: bytes) -> AsyncIterator[Receiver]:
    running = Receiver(answer)
    server = await asyncio.start_server(running.handle, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()


async def test_the_webhook_gets_the_payload() -> None:
    async with receiver(b"HTTP/1.1 204 No Content\r\n\r\n") as hook:
        assert await deliver(digest(), hook.where()) == ()
    assert [json.loads(body) for body in hook.bodies] == [digest().payload]


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", {"webhook:http-404"}),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", {"webhook:http-302"}),
        (b"no HTTP at all\r\n\r\n", {"webhook:httpx.RemoteProtocolError"}),
        (b"", {"webhook:httpx.ReadTimeout", "webhook:TimeoutError"}),
    ],
)
async def test_what_a_webhook_does_not_take_is_told_by_a_code(answer: bytes, codes: set[str]) -> None:
    async with receiver(answer) as hook:
        failed = await deliver(digest(), hook.where(), deadline=10.0 if answer else 3.0)
    assert len(failed) == 1
    assert failed[0] in codes
    assert len(hook.bodies) == 1


@pytest.mark.parametrize(
    "url", [f"http://127.0.0.1:1/{SECRET}", f"http://{SECRET}.invalid/", f"no-url-{SECRET}", f"http://[{SECRET}/", "\n"]
)
async def test_a_webhook_that_cannot_be_reached_leaks_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    where = settings.Digest().model_copy(update={"webhook_url": SecretStr(url)})  # past the settings' own check
    failed = await deliver(digest(), where)
    assert len(failed) == 1
    assert failed[0].startswith("webhook:")
    assert SECRET not in failed[0] + caplog.text


# --- sending by mail -----------------------------------------------------------------------------------------------------


class Mailbox:
    """An aiosmtpd handler that keeps what it gets, or refuses as told."""

    def __init__(self, refuses: Callable[[str], bool]) -> None:
        self.refuses = refuses
        self.envelopes: list[Envelope] = []

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]) -> str:
        if self.refuses(address):
            return f"550 5.1.1 {SECRET}"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        return "250 2.0.0 OK"


@asynccontextmanager
async def mailbox(
    refuses: Callable[[str], bool] = lambda _: False,
) -> AsyncIterator[tuple[Mailbox, settings.Digest]]:
    box = Mailbox(refuses)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(box, hostname="relay.example", loop=loop), "127.0.0.1", 0)
    try:
        yield box, by_mail(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def by_mail(port: int) -> settings.Digest:
    return settings.Digest(
        smtp_host="127.0.0.1",
        smtp_port=port,
        mail_from="ingest@example.org",
        mail_to=("a@example.org", "b@example.org"),
    )


async def test_the_mail_reaches_its_recipients() -> None:
    async with mailbox() as (box, where):
        assert await deliver(digest(), where) == ()
    (envelope,) = box.envelopes
    assert isinstance(envelope.content, bytes)
    message = message_from_bytes(envelope.content, policy=default)
    assert (envelope.mail_from, envelope.rcpt_tos) == ("ingest@example.org", ["a@example.org", "b@example.org"])
    assert message["Subject"] == digest().subject
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"] and message["Message-ID"]
    assert message.get_content().replace("\r\n", "\n") == digest().text


async def test_refused_recipients_are_told_by_a_code() -> None:
    async with mailbox(refuses=lambda address: address.startswith("a@")) as (box, where):
        assert await deliver(digest(), where) == ("mail:some-recipients-refused",)
    async with mailbox(refuses=lambda _: True) as (box, where):
        assert await deliver(digest(), where) == ("mail:smtplib.SMTPRecipientsRefused",)
    assert box.envelopes == []


async def test_one_way_failing_does_not_stop_the_other() -> None:
    async with receiver(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") as hook, mailbox() as (box, where):
        both = where.model_copy(update={"webhook_url": hook.where().webhook_url})
        assert await deliver(digest(), both) == ("webhook:http-500",)
    assert len(box.envelopes) == 1


async def test_no_mail_server_at_all() -> None:
    assert await deliver(digest(), by_mail(1)) == ("mail:ECONNREFUSED",)


async def test_nothing_configured_sends_nothing() -> None:
    assert await deliver(digest(), settings.Digest()) == ()
