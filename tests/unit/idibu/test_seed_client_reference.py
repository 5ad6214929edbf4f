"""The examples of seed-client-reference.html.txt, replayed word for word against client and sandbox.

Its requests are fragments ("<!-- ... -->"): here they are completed by the fields that idibu's documents call mandatory.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import httpx
import pytest
from lxml import etree
from pydantic import SecretStr

from apptrack_ingest.idibu import (
    Advert,
    Board,
    ByClientReference,
    ById,
    Client,
    DuplicateReference,
    JobConfig,
    JobStatus,
    LockBoards,
    Post,
    PostStatus,
    ValidateLevel,
)
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_script import Quirk, Step

HASH = "0123456789abcdef-s3cr3t/+ü"
PATH = "/clients/api/REMOTE/V3/other-hash"
RawServer = Callable[[bytes], AbstractAsyncContextManager[str]]
PUBLISHED = datetime(2011, 7, 7, 0, 1, tzinfo=UTC)

REST = """
   <reference><![CDATA[REF-1]]></reference>
   <posts><board id="10"/><board id="41"/><board id="517"/></posts>
  </job>
</idibu>"""
ADD = f"""<?xml version="1.0" encoding="UTF-8" ?>
<idibu>
 <method>ADD</method>
 <config><lockboards>YES</lockboards></config>
 <job>
   <client_reference>SOM3UNIQUERef</client_reference>
   <sender id="31000383"></sender>
   <title><![CDATA[Here goes the job title]]></title>
   <description><![CDATA[This is a job description can be long]]></description>{REST}"""
ADDED = """<?xml version="1.0" encoding="UTF-8" ?>
<idibu>
 <job status="added" id="31003390" client_reference="SOM3UNIQUERef">
  <posts>
   <posts status="pending" boardid="10" queueid="1802" type="add" publish="2011-07-07 00:01" duration="14" />
   <posts status="pending" boardid="41" queueid="1803" type="add" publish="2011-07-07 00:01" duration="2" />
   <posts status="pending" boardid="517" queueid="1804" type="add" publish="2011-07-07 00:01" duration="2" />
  </posts>
 </job>
</idibu>"""
DUPLICATE = """<?xml version="1.0" encoding="UTF-8" ?>
<idibu>
 <log>
  <errors>
   <error>The Client Reference provided is already in the system, you have to provide a new reference for a new job.</error>
  </errors>
 </log>
</idibu>"""
UPDATE = f"""<?xml version="1.0" encoding="UTF-8" ?>
<idibu>
 <method>UPDATE</method>
 <config>
   <show_durations>No</show_durations>
   <lockboards>YES</lockboards>
   <partnerid>yourpartnerid</partnerid>
   <redirecturl>http://www.google.com</redirecturl>
   <validate_level>Warning</validate_level>
 </config>
 <job>
   <sender id="31000383"></sender>
   <client_reference>SOM3UNIQUERef</client_reference>
   <title><![CDATA[Here goes the job title]]></title>
   <description><![CDATA[This is a job description can be long]]></description>{REST}"""
UPDATED = """<?xml version="1.0" encoding="UTF-8" ?>
<idibu>
  <!-- job id matches the id informed previously by the system -->
  <job status="added" id="31003390" client_reference="SOM3UNIQUERef">
   <posts>
    <posts status="pending" boardid="10" queueid="1808" type="add" publish="2011-07-07 00:01" duration="14" />
    <posts status="pending" boardid="41" queueid="1809" type="add" publish="2011-07-07 00:01" duration="2" />
    <posts status="pending" boardid="517" queueid="1810" type="add" publish="2011-07-07 00:01" duration="2" />
   </posts>
  </job>
</idibu>"""
NEW_REFERENCE = f"""<idibu>
 <method>UPDATE</method>
 <config><lockboards>YES</lockboards></config>
 <!-- we use the job id provided by idibu -->
 <job id="31003390">
  <sender id="31000383"></sender>
  <client_reference>SOM3-New-UNIQUERef</client_reference>
  <title><![CDATA[Here goes the job title]]></title>
  <description><![CDATA[This is a job description can be long]]></description>{REST}"""

ADVERT = Advert(
    *(31000383, "Here goes the job title", "This is a job description can be long", "REF-1"),
    boards=(Board(10), Board(41), Board(517)),
)
LOCKED = JobConfig(lockboards=LockBoards.YES)
CONFIG = JobConfig(False, LockBoards.YES, "yourpartnerid", "http://www.google.com", ValidateLevel.WARNING)
REFERENCE = ByClientReference("SOM3UNIQUERef")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    clock = PUBLISHED.timestamp()
    async with running(Sandbox({HASH: "acme", "other-hash": "other"}, clock=lambda: clock)) as running_one:
        yield running_one


def canonical(document: str) -> str:
    parser = etree.XMLParser(remove_comments=True)
    root = etree.fromstring(document.encode(), parser)
    for child in root.iterfind("config/*"):
        child.text = (child.text or "").lower()  # the seed writes No and YES, later documents no and yes
    return etree.canonicalize(etree.tostring(root, encoding="unicode"), strip_text=True)


async def replayed(sandbox: Sandbox, document: str) -> str:
    """The sandbox's answer to the seed's own request."""
    async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as http:
        return canonical((await http.post(PATH, data={"xml_text": document})).text)


def sent(sandbox: Sandbox) -> str:
    """The last request that the sandbox heard, without what only the later documents ask for."""
    document = sandbox.requests()[-1].data or ""
    return canonical(document.replace("<utf8_enable>yes</utf8_enable>", ""))


async def test_the_requests_and_their_answers(sandbox: Sandbox) -> None:
    assert await replayed(sandbox, ADD) == canonical(ADDED)
    assert await replayed(sandbox, ADD) == canonical(DUPLICATE)
    assert await replayed(sandbox, UPDATE) == canonical(UPDATED)
    changed = await replayed(sandbox, NEW_REFERENCE)
    assert 'client_reference="SOM3-New-UNIQUERef" id="31003390"' in changed
    assert [(job.id, job.client_reference) for job in sandbox.jobs("other")] == [(31003390, "SOM3-New-UNIQUERef")]


async def test_the_client_sends_them_and_understands_the_answers(sandbox: Sandbox, client: Client) -> None:
    added = await client.jobs.add("SOM3UNIQUERef", ADVERT, LOCKED)
    assert sent(sandbox) == canonical(ADD)
    assert (added.status, added.id, added.client_reference) == (JobStatus.ADDED, 31003390, "SOM3UNIQUERef")
    assert added.posts[0] == Post(PostStatus.PENDING, 10, 1802, "add", PUBLISHED, 14)
    assert [(post.board_id, post.queue_id, post.duration) for post in added.posts[1:]] == [
        (41, 1803, 2),
        (517, 1804, 2),
    ]
    assert canonical(added.xml) == canonical(ADDED)
    with pytest.raises(DuplicateReference, match="already in the system") as raised:
        await client.jobs.add("SOM3UNIQUERef", ADVERT, LOCKED)
    assert (raised.value.code, raised.value.temporary) == ("duplicate-reference", False)
    updated = await client.jobs.update(REFERENCE, ADVERT, CONFIG)
    assert sent(sandbox) == canonical(UPDATE)
    assert (updated.id, [post.queue_id for post in updated.posts]) == (added.id, [1808, 1809, 1810])
    changed = await client.jobs.update(ById(31003390), ADVERT, LOCKED, "SOM3-New-UNIQUERef")
    assert sent(sandbox) == canonical(NEW_REFERENCE)
    assert (changed.id, changed.client_reference) == (31003390, "SOM3-New-UNIQUERef")


@pytest.mark.parametrize("answer", [ADDED, UPDATED, ADDED.replace("<posts s", "<post s"), ADDED.replace('"', "'")])
async def test_the_documented_answers_are_understood(raw_server: RawServer, answer: str) -> None:
    async with (
        raw_server(b"HTTP/1.0 200 OK\r\n\r\n" + answer.encode()) as url,
        Client(url, SecretStr("h")) as client,
    ):
        job = await client.jobs.update(REFERENCE, ADVERT, LOCKED)
    assert (job.status, job.id, job.client_reference) == (JobStatus.ADDED, 31003390, "SOM3UNIQUERef")
    assert [post.duration for post in job.posts] == [14, 2, 2]


@pytest.mark.parametrize("quirk", [*Quirk])
async def test_other_spellings_are_understood_alike(sandbox: Sandbox, client: Client, quirk: Quirk) -> None:
    sandbox.misbehave(Step(quirks={quirk}, times=None))
    added = await client.jobs.add("SOM3UNIQUERef", ADVERT, LOCKED)
    assert (added.status, added.id, added.client_reference) == (JobStatus.ADDED, 31003390, "SOM3UNIQUERef")
    assert added.posts[0] == Post(PostStatus.PENDING, 10, 1802, "add", PUBLISHED, 14)
    with pytest.raises(DuplicateReference):
        await client.jobs.add("SOM3UNIQUERef", ADVERT)
    delayed = await client.jobs.repost(REFERENCE, ADVERT)
    assert (delayed.status, delayed.posting_id) == (JobStatus.DELAYED, 235)
    assert delayed.completion_url == "https://adpost.idibu.invalid/235.html"


async def test_a_reference_is_changed_only_by_the_jobs_id(sandbox: Sandbox, client: Client) -> None:
    with pytest.raises(ValueError, match="job id"):
        await client.jobs.update(REFERENCE, ADVERT, new_client_reference="SOM3-New-UNIQUERef")
    assert not sandbox.requests()


async def test_no_completion_page_for_a_duplicate(sandbox: Sandbox) -> None:
    """ "This is considered a critical error, so no PCP is returned": not even where one would always come."""
    assert await replayed(sandbox, ADD) == canonical(ADDED)
    again = await replayed(sandbox, ADD.replace("YES", "yes_pcp"))
    assert again == canonical(DUPLICATE)
    assert len(sandbox.jobs()) == 1


async def test_references_are_unique_in_an_account(client: Client, sandbox: Sandbox) -> None:
    await replayed(sandbox, ADD)
    added = await client.jobs.add("SOM3UNIQUERef", ADVERT, LOCKED)
    assert added.id == 31003391
