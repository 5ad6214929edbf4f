"""The list of applicants: as the later documents describe it, and as it may come where they are silent."""

import contextlib
from collections.abc import Callable
from datetime import datetime

import httpx
import pytest
from pydantic import SecretStr

from apptrack_ingest.idibu import Client, IdibuNotUnderstood, IdibuRefused, StatusUpdate
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_applicants import NewApplicant
from apptrack_ingest.idibu.sandbox_script import Fault, Quirk, Step
from apptrack_ingest.model import ReportStatus

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
HASH = "0123456789abcdef-s3cr3t/+ü"

DOCUMENTED = """<idibu generator="idibu" version="1.0"><response><applicants>
<applicant><id>33139609</id><email>jane@example.com</email><parsed_email/><name>Jane Doe</name>
<job><id>33007724</id><reference>testref123</reference></job><portal-id>517</portal-id>
<portal-name>idibu Developer Board</portal-name><date>2016-06-03 12:11:59</date><rank>3</rank><status>new</status>
<files><file>cv.pdf</file><link>https://files.example/1</link></files></applicant>
<applicant><id>2</id></applicant></applicants><total>2</total></response><status>success</status></idibu>"""

Serving = Callable[[bytes], contextlib.AbstractAsyncContextManager[str]]


async def listed(client: Client, **given: object) -> list[int]:
    return [one.id async for one in client.applicants.listed(**given)]  # type: ignore[arg-type]


async def read(raw_server: Serving, body: str) -> list[object]:
    async with raw_server(b"HTTP/1.0 200 OK\r\n\r\n" + body.encode()) as url, Client(url, SecretStr("h")) as client:
        return [one async for one in client.applicants.listed()]


async def test_an_applicant_as_documented(raw_server: Serving) -> None:
    jane, bare = await read(raw_server, DOCUMENTED)
    assert (jane.id, jane.email, jane.name) == (33139609, "jane@example.com", "Jane Doe")  # type: ignore[attr-defined]
    assert (jane.job_id, jane.job_reference, jane.portal_id) == (33007724, "testref123", 517)  # type: ignore[attr-defined]
    assert (jane.portal_name, jane.status) == ("idibu Developer Board", "new")  # type: ignore[attr-defined]
    assert jane.date == datetime(2016, 6, 3, 12, 11, 59)  # type: ignore[attr-defined]
    assert "<rank>3</rank>" in jane.xml and "cv.pdf" in jane.xml  # type: ignore[attr-defined]
    assert "jane" not in repr(jane).lower()
    assert (bare.id, bare.date, bare.email, bare.job_id) == (2, None, None, None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("response", "ids"),
    [
        ("<response/>", []),
        ("", []),
        ("<response><total>0</total></response>", []),
        ("<response><applicant><id>7</id></applicant></response>", [7]),
    ],
)
async def test_what_no_document_shows(raw_server: Serving, response: str, ids: list[int]) -> None:
    found = await read(raw_server, f"<idibu>{response}<status>success</status></idibu>")
    assert [one.id for one in found] == ids  # type: ignore[attr-defined]


async def test_an_applicant_without_id_is_not_understood(raw_server: Serving) -> None:
    with pytest.raises(IdibuNotUnderstood, match="without id"):
        await read(raw_server, DOCUMENTED.replace("<id>2</id>", "<id>two</id>"))


async def test_all_pages_of_the_account_between_two_times(sandbox: Sandbox, client: Client) -> None:
    sandbox.arrive(*(NewApplicant(account="acme", id=n, date=NOW - n * 3600) for n in range(1, 24)))
    sandbox.arrive(NewApplicant(account="other", id=99))
    assert await listed(client, page=5) == list(range(1, 24))
    now = datetime(2023, 11, 14, 22, 13, 20)
    assert await listed(client, after=now.replace(hour=20)) == [1, 2]
    assert await listed(client, before=now.replace(day=14, hour=1)) == [21, 22, 23]
    asked = [one for one in sandbox.requests() if one.call == "applicants"]
    assert len(asked) == 6 + 2 + 2


async def test_who_has_a_status_is_an_applicant_too(sandbox: Sandbox, client: Client) -> None:
    await client.post_status(5, StatusUpdate(ReportStatus.SUCCESS))
    sandbox.arrive(NewApplicant(account="acme", id=5, date=NOW - 60))
    await client.post_status(6, StatusUpdate(ReportStatus.SUCCESS))
    found = [one async for one in client.applicants.listed()]
    assert [(one.id, one.date) for one in found] == [
        (5, datetime(2023, 11, 14, 22, 12, 20)),
        (6, datetime(2023, 11, 14, 22, 13, 20)),
    ]


@pytest.mark.parametrize("quirk", [Quirk.UPPER_CASE, Quirk.UTF8, Quirk.WHITE_SPACE, Quirk.SINGLE_QUOTES])
async def test_every_spelling_is_read(sandbox: Sandbox, client: Client, quirk: Quirk) -> None:
    sandbox.arrive(NewApplicant(account="acme", id=1))
    sandbox.misbehave(Step(quirks=frozenset({quirk}), call="applicants", times=None))
    assert await listed(client) == [1]


async def test_who_may_not_use_it_is_told(sandbox: Sandbox, client: Client) -> None:
    sandbox.misbehave(Step(fault=Fault.FAILED, call="applicants", text="Your account may not do this"))
    with pytest.raises(IdibuRefused, match="may not do this"):
        await listed(client)
    await client.post_status(5, StatusUpdate(ReportStatus.SUCCESS))  # the step was for that call alone


async def test_without_a_hash_nothing_is_sent(sandbox: Sandbox) -> None:
    async with Client(sandbox.base_url, None) as client:
        with pytest.raises(ValueError, match="hash"):
            await listed(client)
    with pytest.raises(ValueError, match="page"):
        client.applicants.listed(page=101)
    assert sandbox.requests() == []


async def test_the_sandbox_is_told_of_applicants_over_http_and_keeps_them(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "sandbox.jsonl"
    async with running(Sandbox({HASH: "acme"}, file)) as sandbox, httpx.AsyncClient(trust_env=False) as http:
        url = f"{sandbox.base_url}/sandbox/arrived"
        assert (await http.post(url, json=[{"account": "acme", "id": 3, "date": NOW}])).json()[0]["id"] == 3
        assert (await http.post(url, json=[{"account": "acme", "id": 0}])).status_code == 400
        assert (await http.post(url, content=b"[]")).status_code == 415
        wrong = {"hash": HASH, "after_date": "yesterday"}
        assert "Invalid after_date" in (await http.get(f"{sandbox.base_url}/ws/rest/v1/applicants", params=wrong)).text
    async with running(Sandbox({HASH: "acme"}, file)) as again, Client(again.base_url, SecretStr(HASH)) as client:
        assert await listed(client) == [3]
