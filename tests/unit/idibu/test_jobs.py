"""Jobs beyond the seed's examples: limits before sending, the other methods, every kind of answer."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from lxml import etree
from pydantic import SecretStr

from apptrack_ingest.idibu import (
    Advert,
    Board,
    ByClientReference,
    ById,
    Cancellation,
    Client,
    DuplicateReference,
    ErrorKind,
    IdibuRefused,
    IdibuUnauthorized,
    JobConfig,
    JobStatus,
    JobTime,
    JobType,
    LockBoards,
    Note,
    PostReason,
    PostStatus,
    SalaryPer,
    ValidateLevel,
)
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_jobs_asked import BoardRules

HASH = "0123456789abcdef-s3cr3t/+ü"
RawServer = Callable[[bytes], AbstractAsyncContextManager[str]]
LOCKED = JobConfig(lockboards=LockBoards.YES)
ADVERT = Advert(7, "Job title", "Job description", "REF-1", (Board(10), Board(54, 3)))
REFERENCE = ByClientReference("C-1")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    boards = {10: BoardRules(14), 54: BoardRules(7), 517: BoardRules(2, quota=1)}
    async with running(Sandbox({HASH: "acme"}, clock=lambda: 1_700_000_000.0, boards=boards)) as running_one:
        yield running_one


def sent(sandbox: Sandbox) -> etree._Element:
    return etree.fromstring((sandbox.requests()[-1].data or "").encode())


# --- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"title": "abcd"}, "title must have at least 5"),
        ({"description": "x   "}, "description must have at least 5"),
        ({"reference": "abc"}, "reference must have at least 4"),
        ({"sender_id": 0}, "sender"),
        ({"salary_min": 2, "salary_max": 1}, "salary"),
        ({"publish": datetime(2024, 1, 1)}, "time zone"),
    ],
)
def test_limits_of_an_advert(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(ADVERT, **changes)


def test_limits_of_the_rest() -> None:
    for wrong in (
        lambda: ById(0),
        lambda: ByClientReference(" "),
        lambda: ByClientReference("a\nb"),
        lambda: Board(0),
        lambda: Board(1, 0),
        lambda: JobConfig(completion_email="nobody"),
    ):
        with pytest.raises(ValueError):
            wrong()


async def test_nothing_beyond_a_limit_is_sent(sandbox: Sandbox, client: Client) -> None:
    jobs = client.jobs
    for call in (
        jobs.add("", ADVERT),
        jobs.update(ById(1), ADVERT, new_client_reference=" "),
        jobs.quick_repost(REFERENCE, [0]),
        jobs.delete(REFERENCE, [-1]),
        jobs.delete_by_references(),
        jobs.cancel(),
    ):
        with pytest.raises(ValueError):
            await call
    assert not sandbox.requests()


async def test_every_field_has_its_place(sandbox: Sandbox, client: Client) -> None:
    advert = replace(
        ADVERT,
        description="<p>R&amp;D ]]> done\x00</p>",
        start_date=date(2024, 5, 1),
        salary_min=Decimal("20000.50"),
        salary_max=30000,
        salary_per=SalaryPer.ANNUM,
        currency="GBP",
        job_type=JobType.PERMANENT,
        job_time=JobTime.FULL_TIME,
        category=21,
        location="GB",
        sublocation=1024195,
        publish=datetime(2024, 5, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))),
    )
    config = JobConfig(True, LockBoards.YES, "p", "https://x.example", ValidateLevel.FAIL, "ops@example.com")
    added = await client.jobs.add(" C-1 ", advert, config)
    job, block = sent(sandbox).find("job"), sent(sandbox).find("config")
    assert job is not None and block is not None
    assert {child.tag: child.text for child in block} == {
        "show_durations": "yes",
        "lockboards": "yes",
        "partnerid": "p",
        "redirecturl": "https://x.example",
        "validate_level": "fail",
        "utf8_enable": "yes",
        "completionurl": "email",
        "advertcompletionemail": "ops@example.com",
    }
    assert {child.tag: dict(child.attrib) or child.text for child in job if child.tag != "posts"} == {
        "client_reference": "C-1",
        "sender": {"id": "7"},
        "title": "Job title",
        "description": "<p>R&amp;D ]]> done</p>",
        "reference": "REF-1",
        "startdate": "2024-05-01",
        "salarymin": "20000.50",
        "salarymax": "30000",
        "salaryper": {"value": "annum"},
        "currency": "GBP",
        "jobtype": {"id": "2"},
        "job_time": "2",
        "category": {"id": "21"},
        "location": {"id": "GB"},
        "sublocation": {"id": "1024195"},
        "publish": "2024-04-30 23:30",
    }
    assert [post.publish for post in added.posts] == [datetime(2024, 4, 30, 23, 30, tzinfo=UTC)] * 2
    assert [post.duration for post in added.posts] == [14, 3]
    assert "<![CDATA[Job title]]>" in (sandbox.requests()[-1].data or "")


# --- added, delayed, failed -----------------------------------------------------------------------------------------


async def test_a_person_has_to_complete_it(sandbox: Sandbox, client: Client) -> None:
    """By idibu's default always; with locked boards only where something is in the way."""
    first = await client.jobs.add("C-1", ADVERT)
    assert (first.status, first.posts, first.warnings) == (JobStatus.DELAYED, (), ())
    assert first.completion_url == "https://adpost.idibu.invalid/235.html"
    assert first.completion_url not in repr(first)
    other = await client.jobs.add("C-2", replace(ADVERT, boards=(Board(99), Board(517))), LOCKED)
    assert (other.status, other.posting_id) == (JobStatus.DELAYED, 236)
    assert [note.text for note in other.warnings] == ["The account is not subscribed to board 99"]
    mailed = await client.jobs.repost(REFERENCE, ADVERT, JobConfig(completion_email="ops@example.com"))
    assert (mailed.status, mailed.completion_url, mailed.posting_id) == (JobStatus.DELAYED, None, 237)
    assert [job.posting for job in sandbox.jobs()] == [237, 236]


async def test_a_quota_runs_out(client: Client) -> None:
    once = replace(ADVERT, boards=(Board(517),))
    assert (await client.jobs.add("C-1", once, LOCKED)).status is JobStatus.ADDED
    second = await client.jobs.add("C-2", once, LOCKED)
    assert second.status is JobStatus.DELAYED
    assert [note.text for note in second.warnings] == ["The account has no quota left for board 517"]


async def test_a_failed_job_is_an_answer(sandbox: Sandbox, client: Client) -> None:
    async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as http:
        config = "<config><validate_level>fail</validate_level></config>"
        bare = f"<idibu><method>add</method>{config}<job><title>x</title></job></idibu>"
        text = (await http.post("/clients/api/REMOTE/V3/" + HASH.replace("/", "%2F"), data={"xml_text": bare})).text
    assert '<job status="FAILED"><error>DESCRIPTION: the value is missing</error>' in text
    assert "title: at least 5 characters" in text
    assert not sandbox.jobs()


@pytest.mark.parametrize(
    ("key", "words"), [(ById(5), "with this id"), (ByClientReference("none"), "with this Client Reference")]
)
async def test_a_job_there_is_not(client: Client, key: ById | ByClientReference, words: str) -> None:
    for call in (
        client.jobs.update(key, ADVERT),
        client.jobs.repost(key, ADVERT),
        client.jobs.quick_repost(key),
        client.jobs.delete(key),
        client.jobs.cancel_job(key),
    ):
        with pytest.raises(IdibuRefused, match=words) as raised:
            await call
        assert type(raised.value) is IdibuRefused


async def test_a_changed_reference_must_be_new_too(client: Client) -> None:
    first = await client.jobs.add("C-1", ADVERT, LOCKED)
    await client.jobs.add("C-2", ADVERT, LOCKED)
    assert first.id
    with pytest.raises(DuplicateReference):
        await client.jobs.update(ById(first.id), ADVERT, new_client_reference="C-2")
    same = await client.jobs.update(ById(first.id), ADVERT, LOCKED, "C-1")
    assert same.client_reference == "C-1"


async def test_a_wrong_hash(sandbox: Sandbox) -> None:
    async with Client(sandbox.base_url, SecretStr("wr0ng-hash")) as stranger:
        for status in (200, 401):
            sandbox.wrong_hash_status = status
            with pytest.raises(IdibuUnauthorized):
                await stranger.jobs.add("C-1", ADVERT)
    told = json.dumps([request.path + request.answer for request in sandbox.requests()])
    assert "wr0ng-hash" not in told and "****" in told


# --- again, down, cancelled -----------------------------------------------------------------------------------------


async def test_quick_repost(sandbox: Sandbox, client: Client) -> None:
    added = await client.jobs.add("C-1", replace(ADVERT, boards=(Board(10), Board(517))), LOCKED)
    assert added.id
    mixed = await client.jobs.quick_repost(ById(added.id), [10, 517, 54, 99])
    assert (mixed.status, mixed.id) == (None, added.id)
    assert [(post.board_id, post.status, post.reason) for post in mixed.posts] == [
        (10, PostStatus.PENDING, None),
        (517, PostStatus.FAILED, PostReason.NO_QUOTA),
        (54, PostStatus.FAILED, PostReason.NO_POST),
        (99, PostStatus.FAILED, PostReason.NOT_SUBSCRIBED),
    ]
    everywhere = await client.jobs.quick_repost(REFERENCE)
    assert [post.board_id for post in everywhere.posts] == [10, 517]
    await client.jobs.add("C-2", ADVERT)  # awaits completion: nothing was posted
    nothing = await client.jobs.quick_repost(ByClientReference("C-2"))
    assert nothing.status is JobStatus.FAILED
    assert nothing.errors == (Note("The job has no posts that could be sent again", ErrorKind.POSTS),)
    sandbox.boards = {}
    assert ErrorKind.BOARDS in [note.kind for note in (await client.jobs.quick_repost(REFERENCE)).errors]


async def test_delete(sandbox: Sandbox, client: Client) -> None:
    added = await client.jobs.add("C-1", ADVERT, LOCKED)
    assert added.id
    some = await client.jobs.delete(REFERENCE, [10, 517])
    assert [(post.board_id, post.status, post.type, post.queue_id) for post in some.posts] == [
        (517, PostStatus.FAILED, None, None),
        (10, PostStatus.PENDING, "del", 1804),
    ]
    rest = await client.jobs.delete(ById(added.id))
    assert [(post.board_id, post.remote_id, post.message) for post in rest.posts] == [
        (54, "R1805", "The post will be deleted")
    ]
    none = await client.jobs.delete(ById(added.id))
    assert (none.status, [note.text for note in none.errors]) == (
        JobStatus.FAILED,
        ["The job has no posts that could be deleted"],
    )
    assert [(post.kind, post.status) for post in sandbox.jobs()[0].posts] == [
        ("add", "replaced"),
        ("add", "replaced"),
        ("del", "pending"),
        ("del", "pending"),
    ]


async def test_delete_by_the_adverts_references(sandbox: Sandbox, client: Client) -> None:
    """They are not unique: what several jobs have is deleted only on demand."""
    for number in (1, 2):
        await client.jobs.add(f"C-{number}", ADVERT, LOCKED)
    await client.jobs.add("C-3", replace(ADVERT, reference="REF-3"), LOCKED)
    with pytest.raises(IdibuRefused, match="Several jobs"):
        await client.jobs.delete_by_references("REF-1")
    (alone,) = await client.jobs.delete_by_references("REF-3")
    assert len(alone.posts) == 2
    gone = await client.jobs.delete_by_references("REF-1", "REF-3", every=True)
    assert [len(job.posts) for job in gone] == [2, 2, 0]
    job = sent(sandbox).find("job")
    assert job is not None and dict(job.attrib) == {"ref": "REF-1;!;REF-3", "all": "yes"}
    with pytest.raises(IdibuRefused, match="No job"):
        await client.jobs.delete_by_references("REF-9")


async def test_cancel(sandbox: Sandbox, client: Client) -> None:
    added = await client.jobs.add("C-1", ADVERT, LOCKED)
    delayed = await client.jobs.add("C-2", ADVERT)
    first, second = (post.queue_id for post in added.posts)
    assert first and second and delayed.posting_id
    answer = await client.jobs.cancel([first, 9], [delayed.posting_id, 8])
    assert [(one.id, one.status) for one in answer.queue] == [(first, PostStatus.CANCELLED), (9, PostStatus.FAILED)]
    assert answer.postings == (
        Cancellation(PostStatus.CANCELLED, delayed.posting_id, "The record was cancelled"),
        Cancellation(PostStatus.FAILED, 8, "There is no such record"),
    )
    again = await client.jobs.cancel([first])
    assert again.queue[0].status is PostStatus.FAILED
    rest = await client.jobs.cancel_job(REFERENCE)
    assert [one.id for one in rest.queue] == [second]
    with pytest.raises(IdibuRefused, match="nothing to cancel"):
        await client.jobs.cancel_job(REFERENCE)
    assert [job.posting for job in sandbox.jobs()] == [None, None]


async def test_what_was_posted_survives(tmp_path: Path) -> None:
    file = tmp_path / "told.jsonl"
    async with running(Sandbox({"h": "acme"}, file)) as sandbox, Client(sandbox.base_url, SecretStr("h")) as client:
        await client.jobs.add("C-1", ADVERT, LOCKED)
        await client.jobs.add("C-2", ADVERT)
        before = sandbox.jobs()
    async with running(Sandbox({"h": "acme"}, file)) as sandbox, Client(sandbox.base_url, SecretStr("h")) as client:
        assert sandbox.jobs() == before
        third = await client.jobs.add("C-3", ADVERT, LOCKED)
        assert (third.id, third.posts[0].queue_id) == (31003392, 1804)
        async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as http:
            page = (await http.get("/")).text
            held = (await http.get("/sandbox/jobs")).json()
    assert "posting 235" in page and "board 10: add pending" in page
    assert [job["client_reference"] for job in held] == ["C-1", "C-2", "C-3"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "The payload is missing"),
        ("<idibu>", "The payload is no valid XML"),
        ("<idibu/>", "Unknown method"),
        ("<jobs><method>ADD</method></jobs>", "Unknown method"),
        ("<idibu><method>ADD</method></idibu>", "The payload has no job"),
    ],
)
async def test_the_sandbox_refuses(sandbox: Sandbox, document: str | None, words: str) -> None:
    path = "/clients/api/REMOTE/V3/" + HASH.replace("/", "%2F")
    async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as http:
        answer = await http.post(path, data={"xml_text": document} if document else {})
        got = await http.get(path, params={"xml_text": "<idibu/>"})
    assert f"<idibu><log><errors><error>{words}</error></errors></log></idibu>" in answer.text
    assert "The payload is missing" in got.text


async def test_white_space_around_a_reference_is_not_part_of_it(sandbox: Sandbox, client: Client) -> None:
    added = await client.jobs.add(" SPACED ", ADVERT)
    assert added.id is not None
    assert (await client.jobs.update(ByClientReference(" SPACED "), ADVERT)).id == added.id
    renamed = await client.jobs.update(ById(added.id), ADVERT, new_client_reference=" RENAMED ")
    assert renamed.client_reference == "RENAMED"
