"""From the end of DATA to the answer: what is spooled, when it is not, and what is said."""

import asyncio
import logging
import re

import pytest

from apptrack_ingest.errors import SpoolUnavailable
from apptrack_ingest.model import Envelope
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.deciding import Decider, Delivery
from apptrack_ingest.receive.judging import TrustPolicy
from apptrack_ingest.receive.policy import Directory, Limits, Reply
from apptrack_ingest.receive.reception import Held, Hooks, Reception, trace_header
from apptrack_ingest.trust import Connection, Rules

from .conftest import Judge

ID = 33139609


@pytest.fixture
def make_reception(spool, directory):
    def make(**limits) -> Reception:
        return Reception(
            lambda *args: spool.put(*args),
            Decider(directory, Judge(), limits=Limits(**limits)),
            clock=lambda: 1_700_000_000.0,
            hostname="mx.test.example",
        )

    return make


def delivery(content: bytes, *recipients: str, peer: str = "127.0.0.1", **envelope) -> Delivery:
    return Delivery(
        Envelope("ann@example.org", recipients or ("jobs@north.example",), peer, "client.example", **envelope),
        Connection(peer, "client.example"),
        "ESMTP",
        content,
    )


async def answer_to(reception: Reception, mail: Delivery) -> Reply:
    """The reply, once all is done that comes after it."""

    async def coming() -> Delivery:
        return mail

    reply, afterwards = await reception.receive(coming(), Held(lambda: None))
    afterwards()
    return reply


async def test_a_mail_is_spooled_with_its_trace_on_top(make_reception, spool, mail):
    reply = await answer_to(make_reception(), delivery(mail))
    assert reply.render() == "250 2.6.0 Queued as 1"
    ((message, arrivals),) = spool.kept
    assert message.raw.endswith(b"\r\n" + mail)
    assert message.received_at == 1_700_000_000.0
    assert [(a.account, a.applicant_id, a.trusted) for a in arrivals] == [("north", ID, True)]


@pytest.mark.parametrize(
    ("peer", "header", "believed"),
    [
        ("127.0.0.1", b"X-iTrackID: 5\r\n", 5),
        ("192.0.2.1", b"X-iTrackID: 5\r\n", None),
        ("", b"X-iTrackID: 5\r\n", None),
        ("127.0.0.1", b"X-iTrackID: five\r\n", None),
        ("127.0.0.1", b"X-iTrackID: 5\r\nX-ITRACKID: 5\r\n", None),
        ("127.0.0.1", b"", None),
    ],
)
async def test_an_id_is_believed_only_from_a_trusted_peer_and_well_formed(
    make_reception, spool, peer, header, believed
):
    await answer_to(make_reception(), delivery(header + b"\r\nbody\r\n", peer=peer))
    ((_, (arrival,)),) = spool.kept
    assert (arrival.account, arrival.applicant_id) == ("north", believed)
    assert arrival.trusted == (peer == "127.0.0.1")
    assert arrival.trust_note


async def test_one_application_per_account_and_one_message(make_reception, spool):
    content = b"X-iTrackID: 5\r\nX-Itrackid-Clientid: 22\r\n\r\n"
    await answer_to(
        make_reception(), delivery(content, "apply@shared.example", "x@south.example", "both@shared.example")
    )
    ((_, arrivals),) = spool.kept
    assert [arrival.account for arrival in arrivals] == ["south", None]


async def test_a_new_directory_counts_from_the_next_mail_on(make_reception, spool, mail):
    reception = make_reception()
    reception.decider.configure(Directory(any_recipient="default"), TrustPolicy(), Limits())
    assert reception.recipient("who@ever.example", "127.0.0.1", 0) is policy.RECIPIENT_OK
    assert reception.recipient("who@ever.example", "192.0.2.1", 0) is policy.UNKNOWN_RECIPIENT
    await answer_to(reception, delivery(mail, "who@ever.example"))
    assert [(a.account, a.applicant_id) for a in spool.kept[0][1]] == [("default", ID)]


async def test_of_a_recipient_known_before_nothing_is_remembered_past_a_reload(spool, directory, mail):
    asked = []

    class Remembering(Judge):
        async def judge(self, mail, rules):
            asked.append(rules)
            return await super().judge(mail, rules)

    before, after = TrustPolicy(), TrustPolicy(common=Rules(users=frozenset({"ann"})))
    reception = Reception(
        spool.put, Decider(directory, Remembering(), trust=before), clock=float, hostname="mx.example"
    )
    await answer_to(reception, delivery(mail))
    await answer_to(reception, delivery(mail))
    reception.decider.configure(Directory(any_recipient="default"), after, Limits())
    await answer_to(reception, delivery(mail))
    assert [arrivals[0].account for _, arrivals in spool.kept] == ["north", "north", "default"]
    assert asked == [{"north": (before.common,)}] * 2 + [{"default": (after.common,)}]


@pytest.mark.parametrize(
    ("content", "limits", "reply"),
    [
        (b"A: " + b"x" * 200 + b"\r\n\r\n", {"header_block": 100}, policy.HEADERS_TOO_BIG),
        (b"Received: x\r\n" * 4 + b"\r\n", {"received_headers": 3}, policy.LOOP),
    ],
)
async def test_what_is_over_a_limit_is_refused_and_not_spooled(make_reception, spool, content, limits, reply):
    assert await answer_to(make_reception(**limits), delivery(content)) is reply
    assert spool.put_calls == 0


async def test_as_many_received_headers_as_allowed_pass(make_reception, spool):
    content = b"Received: x\r\n" * 3 + b"\r\n"
    assert (await answer_to(make_reception(received_headers=3), delivery(content))).code == 250


@pytest.mark.parametrize("error", [SpoolUnavailable("disk full"), ValueError("ann@example.org"), MemoryError()])
async def test_any_fault_is_temporary_and_its_text_told_to_nobody(make_reception, spool, mail, caplog, error):
    spool.error = error
    reception = make_reception()
    with caplog.at_level(logging.DEBUG):
        assert await answer_to(reception, delivery(mail)) is policy.TRY_LATER
    assert type(error).__name__ in caplog.text
    assert "disk full" not in caplog.text
    assert "ann@example.org" not in caplog.text
    spool.error = None
    assert (await answer_to(reception, delivery(mail))).code == 250


async def test_of_a_recipient_without_a_domain_nothing_is_logged(make_reception, caplog):
    reception = make_reception()
    for address in ("jane.doe.private", '"jane doe"', "jane.doe@private.example"):
        assert reception.recipient(address, "192.0.2.1", 0) is policy.UNKNOWN_RECIPIENT
    assert "refused" in caplog.text and "jane" not in caplog.text


async def test_past_the_deadline_the_answer_is_451_and_the_put_goes_on(make_reception, spool, mail):
    spool.gate = asyncio.Event()
    reception, told = make_reception(put_timeout=0.01), asyncio.Queue()
    reception.hooks = Hooks(spooled=told.put_nowait)
    assert await answer_to(reception, delivery(mail)) is policy.TRY_LATER
    assert spool.kept == [] and told.empty()
    spool.gate.set()
    counted = await asyncio.wait_for(told.get(), 10)
    assert spool.put_calls == len(spool.kept) == 1
    ((message, arrivals),) = spool.kept
    assert (counted.message_id, counted.size, counted.arrivals) == (1, len(message.raw), arrivals)


async def test_a_put_that_fails_late_is_noted_by_type_alone(make_reception, spool, mail, caplog):
    spool.gate, spool.error = asyncio.Event(), SpoolUnavailable("secret path")
    reception = make_reception(put_timeout=0.01)
    assert await answer_to(reception, delivery(mail)) is policy.TRY_LATER
    spool.gate.set()
    async with asyncio.timeout(10):
        while "late put ended" not in caplog.text:
            await asyncio.sleep(0)
    assert "SpoolUnavailable" in caplog.text
    assert "secret path" not in caplog.text


async def test_a_put_cancelled_by_others_is_a_fault_like_any(make_reception, spool, mail):
    spool.error = asyncio.CancelledError()
    assert await answer_to(make_reception(), delivery(mail)) is policy.TRY_LATER


async def test_nothing_is_told_before_the_answer_is_there(make_reception, spool, mail):
    reception, told = make_reception(), []
    reception.hooks = Hooks(spooled=told.append, accept=told.append)

    async def coming() -> Delivery:
        return delivery(mail)

    reply, afterwards = await reception.receive(coming(), Held(lambda: None))
    assert (reply.code, len(spool.kept), told) == (250, 1, [])
    afterwards()
    assert [getattr(one, "message_id", "accepted") for one in told] == [1, "accepted"]


async def test_a_mail_whose_bytes_cannot_be_had_is_answered_451(make_reception, spool, caplog):
    async def coming() -> Delivery:
        raise MemoryError("jane.doe@private.example")

    reply, _ = await make_reception().receive(coming(), Held(lambda: None))
    assert (reply, spool.kept) == (policy.TRY_LATER, [])
    assert "MemoryError" in caplog.text and "jane" not in caplog.text


async def test_what_a_mail_holds_is_kept_by_a_put_that_goes_on_and_let_go_of_once(make_reception, spool, mail):
    spool.gate, freed = asyncio.Event(), asyncio.Queue()
    held = Held(lambda: freed.put_nowait("freed"))

    async def coming() -> Delivery:
        return delivery(mail)

    reply, _ = await make_reception(put_timeout=0.01).receive(coming(), held)
    held.let_go()
    assert reply is policy.TRY_LATER and freed.empty()
    spool.gate.set()
    assert await asyncio.wait_for(freed.get(), 10) == "freed"
    held.let_go()
    assert freed.empty()


def trace(recipients: tuple[str, ...] = ("jobs@north.example",), **changes) -> str:
    envelope = {"peer": "192.0.2.7", "helo": "client.example", **changes}
    made = Delivery(Envelope("ann@example.org", recipients, **envelope), Connection(envelope["peer"]), "ESMTPS", b"")
    return trace_header(made, "mx.test.example", 1_700_000_000.0).decode()


def test_the_trace_header():
    assert re.fullmatch(
        r"Received: from client\.example \(\[192\.0\.2\.7\]\)\r\n"
        r" by mx\.test\.example with ESMTPS id [0-9a-f]{16}\r\n"
        r" for <jobs@north\.example>;\r\n"
        r" Tue, 14 Nov 2023 22:13:20 \+0000\r\n",
        trace(),
    )


def test_the_trace_names_no_recipient_when_there_are_several():
    assert "jobs@" not in trace(("jobs@north.example", "jobs@south.example"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"helo": "evil\r\nX-iTrackID: 1"}, "from evil??X-iTrackID:?1 ("),
        ({"helo": "a(b)c"}, "from a?b?c ("),
        ({"helo": ""}, "from unknown ("),
        ({"peer": "2001:db8::1"}, "([IPv6:2001:db8::1])"),
        ({"peer": "fe80::1%eth0"}, "([IPv6:fe80::1])"),
        ({"peer": ""}, "([unknown])"),
    ],
)
def test_the_trace_is_safe_whatever_the_peer_says(changes, expected):
    text = trace(**changes)
    assert expected in text
    assert all(line.startswith((" ", "Received:")) for line in text.splitlines())
    assert all(len(line) < 998 for line in text.splitlines())


def test_the_trace_takes_an_address_beyond_ascii_only_with_smtputf8():
    assert "for" not in trace(("jürgen@north.example",))
    assert "for <jürgen@north.example>" in trace(("jürgen@north.example",), smtputf8=True)
