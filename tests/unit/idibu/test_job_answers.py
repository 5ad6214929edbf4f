"""What idibu may answer about jobs, in every shape that its documents show, and in some that they do not."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from apptrack_ingest.idibu import (
    Advert,
    ByClientReference,
    Client,
    DuplicateReference,
    ErrorKind,
    IdibuNotUnderstood,
    IdibuRefused,
    IdibuUnauthorized,
    JobAnswer,
    JobStatus,
    Note,
    PostReason,
    PostStatus,
)

RawServer = Callable[[bytes], AbstractAsyncContextManager[str]]
ADVERT = Advert(7, "Job title", "Job description", "REF-1")
REFERENCE = ByClientReference("C-1")

LOUD = """\n<?xml version='1.0' encoding='utf8'?><IDIBU><JOB ID="12" STATUS="ADDED"><POSTS>
<POST STATUS='PENDING' BOARDID='54' QUEUEID='84' TYPE='ADD' PUBLISH='2009-06-12 18:00' DURATION='7' />
<POST STATUS='PARKED' BOARDID='x' REASON='new-reason'/></POSTS></JOB>
<LOG><WARNING FIELD='City' TYPE='text' BOARDID='54'>City is
 missing</WARNING></LOG></IDIBU>"""


async def answer_to(raw_server: RawServer, text: str) -> JobAnswer:
    async with (
        raw_server(b"HTTP/1.0 200 OK\r\n\r\n" + text.encode()) as url,
        Client(url, SecretStr("h")) as client,
    ):
        return await client.jobs.repost(REFERENCE, ADVERT)


async def test_an_answer_in_capitals_with_a_warning(raw_server: RawServer) -> None:
    job = await answer_to(raw_server, LOUD)
    assert (job.status, job.id, job.client_reference) == (JobStatus.ADDED, 12, None)
    assert [(post.status, post.board_id, post.reason) for post in job.posts] == [
        (PostStatus.PENDING, 54, None),
        (PostStatus.OTHER, None, PostReason.OTHER),
    ]
    assert job.posts[0].publish == datetime(2009, 6, 12, 18, 0, tzinfo=UTC)
    assert job.warnings == (Note("City is missing", ErrorKind.OTHER, "City", 54),)
    assert "PARKED" in job.xml


async def test_a_delayed_answer_with_errors_and_warnings(raw_server: RawServer) -> None:
    text = """<idibu><job status="delayed" id="3" postingid="23"><postcompletionurl> https://p.example/c </postcompletionurl>
    </job><log><errors><error field='s' boardid='2'>no s</error></errors>
    <warnings><warning>w</warning></warnings></log></idibu>"""
    job = await answer_to(raw_server, text)
    assert (job.status, job.completion_url, job.posting_id) == (JobStatus.DELAYED, "https://p.example/c", 23)
    assert (job.errors, job.warnings) == ((Note("no s", None, "s", 2),), (Note("w"),))


@pytest.mark.parametrize(
    "text",
    [
        '<idibu><job status="FAILED"><error>no title</error></job></idibu>',
        '<idibu><job status="fail"/></idibu>',
        "<idibu><job><error>no title</error></job></idibu>",
    ],
)
async def test_failed_in_every_spelling(raw_server: RawServer, text: str) -> None:
    assert (await answer_to(raw_server, text)).status is JobStatus.FAILED


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<idibu/>", IdibuNotUnderstood),
        ("<idibu><queue id='1' status='cancelled'/></idibu>", IdibuNotUnderstood),
        ("<idibu><job status='postponed' id='1'/></idibu>", IdibuNotUnderstood),
        ("<html><body>Sorry</body></html>", IdibuNotUnderstood),
        ("", IdibuNotUnderstood),
        ("<idibu><status>failed</status></idibu>", IdibuRefused),
        ("<idibu><job id='1'/><status>failed</status></idibu>", IdibuRefused),
        ("<idibu><response><message>no</message></response><status>failed</status></idibu>", IdibuRefused),
        ("<IDIBU><LOG><ERROR>Invalid sender</ERROR></LOG></IDIBU>", IdibuRefused),
        ("<IDIBU><LOG><ERROR>You are not authorised to post to this board</ERROR></LOG></IDIBU>", IdibuRefused),
        ("<IDIBU><LOG><ERROR>You are not authorised</ERROR></LOG></IDIBU>", IdibuUnauthorized),
        ("<IDIBU><LOG><ERROR>Wrong hash</ERROR></LOG></IDIBU>", IdibuUnauthorized),
        (
            "<idibu><job status='failed'><error>The client reference is already in the system</error></job></idibu>",
            DuplicateReference,
        ),
    ],
)
async def test_answers_without_a_job(raw_server: RawServer, text: str, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        await answer_to(raw_server, text)
    assert type(raised.value) is error
