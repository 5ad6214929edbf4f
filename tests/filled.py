"""A spool with something in every table there is, as work, people and accidents leave it."""

from collections.abc import Sequence

from apptrack_ingest.lifecycle import Event, report_of
from apptrack_ingest.model import Arrival, Envelope, HeldReason, Message, ReportState, State
from apptrack_ingest.spool.contract import Action, Facts, ReportSettlement, Settlement, Spool
from apptrack_ingest.spool.tables import Tables

NOW = 1_000_000.0

BODIES = [
    b"X-iTrackID: 1\r\n\r\n\x00\xff",
    b"X-iTrackID: 2\r\n\r\n" + bytes(range(256)) * 300,
    b"",
    b"three",
    b"four",
    b"five",
]
"""Small ones, a large one, an empty one: wherever the spool keeps them."""

NASTY = Facts(
    client_reference="REF", candidate_name="Zoë \0 Müller", candidate_email="zoe@example.com", warnings=("a", "b")
)


async def fill(spool: Spool) -> None:
    """Puts mails, and works them to as many ends as there are."""
    for number, raw in enumerate(BODIES, 1):
        envelope = Envelope("bounces@idibu.example", ("cv@acme.example",), "192.0.2.1", "mx")
        trusted = number != 5
        arrivals = [Arrival("acme", 1 if number < 4 else number, trusted, "why")]
        await spool.put(Message(envelope, NOW - 100 + number, raw, ("spf=pass",), ("odd",)), arrivals)
    await _deliver(spool)
    await _reject_and_tell(spool)
    await spool.act(5, Action(Event.HOLD, "jo", "wait"), now=NOW)
    await spool.claim(worker="dead", now=NOW + 5, lease=1e9, limit=1)
    await spool.set_mark("digest", NOW + 0.1)


async def _deliver(spool: Spool) -> None:
    [claim] = await spool.claim(worker="w", now=NOW, lease=60, limit=1)
    due = report_of(State.DELIVERED, applicant_id=1, believed=True, now=NOW, remote_id="ats-1")
    done = Settlement(Event.DELIVER, "delivered", facts=NASTY, remote_id="ats-1", report=due)
    await spool.settle(claim, done, now=NOW + 1.25)
    [report] = await spool.claim_reports(worker="w", now=NOW + 2, lease=60, limit=1, accounts=["acme"])
    await spool.settle_report(report, ReportSettlement(ReportState.REFUSED, "refused", "words"), now=NOW + 3)


async def _reject_and_tell(spool: Spool) -> None:
    claims = await spool.claim(worker="w", now=NOW + 4, lease=60, limit=2)
    for claim in claims:
        due = report_of(State.REJECTED, applicant_id=claim.applicant_id or 0, believed=True, now=NOW, words="no")
        outcome = Settlement(Event.REJECT, "rejected", "no", facts=NASTY, report=due)
        if claim is claims[-1]:
            outcome = Settlement(Event.HOLD, "untrusted", reason=HeldReason.UNTRUSTED)
        await spool.settle(claim, outcome, now=NOW + 4)


OTHERS = (
    "INSERT INTO pauses (account, stage, reason, since, until, fingerprint, actor)"
    " VALUES ('acme', 'report', 'hash', 1.5, NULL, 'f', ''), ('acme', 'hand-off', 'told', 2.5, 9.5, '', 'jo')",
    "INSERT INTO orders (at, actor, action, account, subject, note, done, refused)"
    " VALUES (1.5, 'jo', 'hold', 'acme', 'state=received', 'why', 1, 0)",
    "INSERT INTO forgotten (digest, salt, at, actor, applications) VALUES ('d', 's', 3.25, 'jo', 2)",
    # It came later and was delivered first.
    "UPDATE applications SET duplicate_of = 6 WHERE id = 1",
    "UPDATE applications SET announced_until = 7.25, waits_since = 6.5 WHERE id = 4",
)
"""What is put in by hand: it needs a long story otherwise."""


async def fill_the_rest(tables: Tables) -> None:
    """The tables that few things lead to."""
    for statement in OTHERS:
        await tables.run(statement)


def assert_all_filled(names: Sequence[str], counts: dict[str, int]) -> None:
    """A table that is new must be filled here, so that its copying is tested."""
    assert {name for name in names if not counts.get(name)} == set(), "fill these in tests/filled.py"
