"""Large mails and documents pass the pipe by, whole, and nothing of a mail that was given up reaches the next."""

import asyncio
import hashlib
import pickle
from dataclasses import fields
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.model import Candidate, Document, HeldReason, Hint, Job, Owner, Parsed, Role, Source
from apptrack_ingest.parse.parcel import LARGE, Packed, Parcel, Place, pack, unpack
from apptrack_ingest.parse.pool import ParserPool


def a_document(content: bytes) -> Document:
    digest = hashlib.sha256(content).hexdigest()
    return Document("cv.pdf", None, "application/pdf", None, len(content), digest, Role.CV, "by its name", content)


def a_mail(*documents: bytes) -> bytes:
    mail = EmailMessage(policy=SMTP)
    mail["X-iTrackID"], mail["From"], mail["Subject"] = "7", "jane@example.org", "Application"
    mail.set_content("see attached")
    for number, content in enumerate(documents):
        mail.add_attachment(content, "application", "pdf", filename=f"{number}.pdf")
    return mail.as_bytes()


def test_what_is_large_is_left_in_the_parcel_and_comes_out_as_it_was() -> None:
    parcel = Parcel()
    parcel.put(b"the mail itself")
    large, small = b"a" * LARGE, b"b" * (LARGE - 1)
    parsed = Parsed(7, None, "d", documents=(a_document(large), a_document(small)), inner=b"c" * LARGE)
    packed = pack(parsed, parcel)
    assert [len(one.content) for one in packed.parsed.documents] == [0, len(small)]
    assert packed.parsed.inner is None
    assert unpack(packed, parcel) == parsed
    parcel.close()


def test_every_field_comes_through_as_it_was() -> None:
    documents = tuple(
        Document(
            "cv.pdf", "CV.pdf", "a/b", "c/d", 3, "0f", role, "why", b"x", "inline", "text", ("archive", "mismatch")
        )
        for role in Role
    )
    parsed = Parsed(
        applicant_id=None,
        id_problem=HeldReason.NO_APPLICANT_ID,
        content_digest="v1:0",
        client_reference="R-1",
        client_id=2,
        candidate=Candidate("Jane", "j@x.org", "From", (Hint("phone", "1", "text"), Hint("email", "k@x.org", "html"))),
        job=Job(3, "Cook", "R-2", "2 Permanent"),
        source=Source(4, "Board", 5),
        owner=Owner(6, "Kim", "kim@x.org", "Leeds", "North"),
        subject="\u00e9",
        text="a",
        html="b",
        documents=documents,
        warnings=("c",),
        headers=(("X", "y"), ("X", "z")),
        unwrapped=True,
        inner=b"d",
    )
    assert all(getattr(parsed, one.name) != getattr(Parsed(1, None, ""), one.name) for one in fields(Parsed))
    for one in (parsed, Parsed(7, None, "d")):
        arrived = pickle.loads(pickle.dumps(Packed(one), pickle.HIGHEST_PROTOCOL))
        assert arrived == Packed(one) and repr(arrived) == repr(Packed(one))
        assert all(isinstance(document.role, Role) for document in arrived.parsed.documents)


def test_what_is_small_goes_by_the_pipe() -> None:
    parcel = Parcel()
    parsed = Parsed(7, None, "d", documents=(a_document(b"small"),), inner=b"small too")
    assert pack(parsed, parcel) == Packed(parsed)
    parcel.close()


def test_a_parcel_that_ends_too_early_is_noticed() -> None:
    parcel = Parcel()
    place = parcel.put(b"12345")
    parcel.empty()
    for wrong in (place, Place(0, 1)):
        with pytest.raises(EOFError):
            parcel.take(wrong)
    parcel.close()


async def test_large_mails_come_through_the_pool_one_after_another() -> None:
    pool = ParserPool(deadline=60.0, memory_bytes=2_000_000_000)
    try:
        for fill in (b"x", b"y"):
            contents = [fill * (3 * LARGE), fill * 10, fill * LARGE]
            parsed = await pool.parse(a_mail(*contents))
            assert sorted(len(one.content) for one in parsed.documents) == sorted(map(len, contents))
            assert all(hashlib.sha256(one.content).hexdigest() == one.sha256 for one in parsed.documents)
    finally:
        await pool.close()


async def test_after_a_large_mail_that_was_given_up_the_next_is_read_as_it_is() -> None:
    pool = ParserPool(deadline=60.0, memory_bytes=2_000_000_000)
    try:
        await pool.parse(a_mail(b"warm up"))
        given_up = asyncio.create_task(pool.parse(a_mail(b"x" * (20 * LARGE))))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        parsed = await pool.parse(a_mail(b"y" * (2 * LARGE)))
        assert [one.content for one in parsed.documents] == [b"y" * (2 * LARGE)]
    finally:
        await pool.close()


async def test_a_large_mail_that_cannot_be_read_leaves_its_place_empty() -> None:
    pool = ParserPool(deadline=60.0, memory_bytes=200_000)
    try:
        for _ in range(2):
            with pytest.raises(Unreadable):
                await pool.parse(a_mail(b"x" * (20 * LARGE)))
    finally:
        await pool.close()
