"""The examples of seed-applicant-status.txt, replayed against client and sandbox."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime

import httpx
import pytest
from lxml import etree
from pydantic import SecretStr

from apptrack_ingest.idibu import Addressing, Client, ReportStatus, StatusUpdate
from apptrack_ingest.idibu.sandbox import Sandbox
from apptrack_ingest.idibu.sandbox_script import Quirk, Step

HASH = "0123456789abcdef-s3cr3t/+ü"
PATH = "/ws/rest/v1/applicant-status"
RawServer = Callable[[bytes], AbstractAsyncContextManager[str]]

SUCCESS = """<applicant>
\t<status>success</status>
\t<date-processed>2016-06-03 12:11:59</date-processed>
</applicant>"""
FAIL = """<applicant>
\t<status>fail</status>
\t<error-message>Candidate application has been eaten by a stray dog</error-message>
\t<date-processed>2016-06-03 13:07:34</date-processed>
</applicant>"""
SAVED = """<idibu>
<status>success</status>
</idibu>"""

UPDATES = {
    SUCCESS: StatusUpdate(ReportStatus.SUCCESS, date_processed=datetime(2016, 6, 3, 12, 11, 59)),
    FAIL: StatusUpdate(
        ReportStatus.FAIL,
        error_message="Candidate application has been eaten by a stray dog",
        date_processed=datetime(2016, 6, 3, 13, 7, 34),
    ),
}


def canonical(document: str | bytes) -> str:
    root = etree.fromstring(document.encode() if isinstance(document, str) else document)
    return etree.canonicalize(etree.tostring(root, encoding="unicode"), strip_text=True)


@pytest.mark.parametrize("document", [SUCCESS, FAIL], ids=["success", "fail"])
async def test_the_requests(sandbox: Sandbox, client: Client, document: str) -> None:
    await client.post_status(123, document)
    await client.post_status(124, UPDATES[document])
    first, second = sandbox.requests()
    assert canonical(second.data or "") == canonical(first.data or "") == canonical(document)
    assert (first.method, first.path) == ("POST", f"{PATH}/123")
    told, again = sandbox.applicants("acme")
    assert (told.status, told.error_message, told.date_processed) == (
        again.status,
        again.error_message,
        again.date_processed,
    )


async def test_the_request_on_the_wire(sandbox: Sandbox) -> None:
    """As the seed has it: a form with one field, percent-encoded."""
    async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as http:
        body = "data=%3Capplicant%3E%3Cstatus%3Esuccess%3C%2Fstatus%3E%3C%2Fapplicant%3E"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        sandbox.misbehave(Step(quirks={Quirk.SHORT}))
        answer = await http.post(f"{PATH}/123?hash=other-hash", content=body, headers=headers)
    assert canonical(answer.content) == canonical(SAVED)
    assert [told.id for told in sandbox.applicants("other")] == [123]


async def test_the_answer(raw_server: RawServer) -> None:
    async with raw_server(b"HTTP/1.0 200 OK\r\n\r\n" + SAVED.encode()) as url, Client(url, SecretStr("456")) as client:
        await client.post_status(123, SUCCESS)


async def test_sending_again_updates(client: Client) -> None:
    await client.post_status(123, UPDATES[FAIL])
    await client.post_status(123, UPDATES[SUCCESS])
    one = await client.get_status(123)
    assert one and (one.status, one.error_message) == (ReportStatus.SUCCESS, None)
    assert one.date_processed == datetime(2016, 6, 3, 12, 11, 59)


async def test_the_current_date_where_none_is_given(client: Client) -> None:
    await client.post_status(1, "<applicant><status>success</status><date-processed/></applicant>")
    await client.post_status(2, StatusUpdate(ReportStatus.SUCCESS))
    assert [one.date_processed async for one in client.statuses()] == [datetime(2023, 11, 14, 22, 13, 20)] * 2


async def test_the_three_ways_to_read_back(sandbox: Sandbox, client: Client) -> None:
    for number in (1, 2, 3):
        await client.post_status(number, StatusUpdate(ReportStatus.SUCCESS, f"R{number}0"))
    by_path = await client.get_status(2)
    assert by_path == await client.get_status(2, Addressing.QUERY)
    assert by_path and (by_path.id, by_path.remote_id) == (2, "R20")
    assert [one.id async for one in client.statuses()] == [1, 2, 3]
    assert [one async for one in client.by_remote_id("*2*")] == [by_path]
    assert {request.path for request in sandbox.requests()[3:]} == {f"{PATH}/2", PATH}


def test_a_fail_must_say_why() -> None:
    with pytest.raises(ValueError, match="error message"):
        StatusUpdate(ReportStatus.FAIL, error_message=" ")
    assert "stray dog" not in repr(UPDATES[FAIL])
