"""An application attached to another mail: its id counts by its own signature alone, whoever brought the outer one."""

from dataclasses import replace
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP

import pytest

from apptrack_ingest import RetryLater
from apptrack_ingest.lifecycle import Event
from apptrack_ingest.model import Arrival, Envelope, HeldReason, Message, State
from apptrack_ingest.spool.contract import Action
from apptrack_ingest.testing import RecordingHandler, an_email
from apptrack_ingest.trust import Rule, Verdict


def forwarded(number: int, *, client_id: int | None = None, beside: bytes | None = None) -> bytes:
    """The application as an attachment of a recruiter's mail, which has no X-iTrackID itself."""
    outer = EmailMessage(policy=SMTP)
    outer["From"], outer["To"], outer["Subject"] = "kara@acme.example", "in@acme.example", "FW: an application"
    outer.set_content("see attached")
    inner = BytesParser(policy=SMTP).parsebytes(an_email(number))
    if client_id is not None:
        inner["X-iTrackID-ClientID"] = str(client_id)
    outer.add_attachment(inner)
    if beside is not None:
        outer.add_attachment(beside, "application", "pdf", filename="cv.pdf")
    return outer.as_bytes()


class Judge:
    """Gives its verdicts one after the other, the last one for ever, and remembers what it was asked."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = list(rules)
        self.asked: list[tuple[str | None, bytes]] = []

    async def __call__(self, account: str | None, raw: bytes) -> Verdict:
        self.asked.append((account, raw))
        rule = self.rules.pop(0) if len(self.rules) > 1 else self.rules[0]
        return Verdict(rule is Rule.DKIM, rule, f"as the test has it: {rule}")


@pytest.fixture
async def handler(world) -> RecordingHandler:
    made = RecordingHandler()
    world.handlers["acme"] = made
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    return made


async def come(world, judge: Judge, *, trusted: bool = True, raw: bytes | None = None):
    world.tools.judge_inner = judge
    envelope = Envelope("", ("in@acme.example",), "127.0.0.1")
    await world.spool.put(Message(envelope, world.clock.now(), raw or forwarded(7)), [Arrival("acme", None, trusted)])
    await world.work()
    (row,) = await world.rows()
    return row


async def test_unsigned_it_is_held_though_its_bringer_is_trusted(world, handler):
    judge = Judge(Rule.NONE)
    row = await come(world, judge)
    assert (row.state, row.reason, row.applicant_id) == (State.HELD, HeldReason.UNTRUSTED, None)
    assert "attached" in row.detail and "as the test has it" in row.detail
    ((account, inner),) = judge.asked
    assert account == "acme"
    assert b"X-iTrackID: 7" in inner and b"kara@acme.example" not in inner
    assert (handler.applications, world.sandbox.applicants()) == ([], [])


@pytest.mark.parametrize("trusted", [True, False])
async def test_its_own_signature_is_enough(world, handler, trusted):
    row = await come(world, Judge(Rule.DKIM), trusted=trusted)
    assert (row.state, row.applicant_id) == (State.DELIVERED, 7)
    assert [applicant.id for applicant in world.sandbox.applicants()] == [7]


async def test_without_a_dns_answer_it_is_tried_again(world, handler):
    row = await come(world, Judge(Rule.UNDECIDED, Rule.UNDECIDED, Rule.DKIM))
    assert (row.state, row.code) == (State.RECEIVED, "dns-failed")
    await world.pass_time(3600)
    (row,) = await world.rows()
    assert (row.state, row.attempts) == (State.DELIVERED, 3)


async def test_each_attempt_judges_anew(world):
    world.handlers["acme"] = RecordingHandler(RetryLater("the ATS is down"))
    await world.worker.configure(world.desks(), world.tools.report_schedule)
    judge = Judge(Rule.DKIM, Rule.NONE)
    assert (await come(world, judge)).state is State.RECEIVED
    await world.pass_time(3600)
    assert [(row.state, row.reason) for row in await world.rows()] == [(State.HELD, HeldReason.UNTRUSTED)]
    assert len(judge.asked) == 2


async def test_the_signed_client_id_must_fit_the_account(world, handler):
    desks = world.desks()
    desks["beta"] = replace(desks["beta"], client_id=42)
    await world.worker.configure(desks, world.tools.report_schedule)
    row = await come(world, Judge(Rule.DKIM), raw=forwarded(7, client_id=42))
    assert (row.state, row.reason) == (State.HELD, HeldReason.UNROUTED)
    assert handler.applications == []


async def test_who_forwards_adds_no_document(world, handler):
    await come(world, Judge(Rule.DKIM), raw=forwarded(7, beside=b"%PDF-1.7 the forwarder's own"))
    (application,) = handler.applications
    assert application.documents
    assert not any(b"forwarder's own" in one.content for one in application.documents)
    assert any("forwarding mail" in warning for warning in application.warnings)


async def test_the_verdict_on_the_attached_mail_is_the_applications(world, handler):
    row = await come(world, Judge(Rule.NONE))
    story = await world.spool.story(row.application_id)
    assert (story.trusted, story.trust_note) == (False, "of the attached mail: as the test has it: none")


async def test_a_person_can_vouch_for_it(world, handler):
    judge = Judge(Rule.NONE)
    row = await come(world, judge)
    await world.spool.act(row.application_id, Action(Event.RELEASE, "kara"), now=world.clock.now())
    await world.work()
    assert [a.applicant_id for a in handler.applications] == [7]
    assert len(judge.asked) == 1
