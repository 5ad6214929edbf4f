"""The sandbox behaves as idibu's documents say, remembers all, and fails on demand."""

import asyncio
import contextlib
import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import httpx
import pytest

from apptrack_ingest.idibu.sandbox import Sandbox, running, serve
from apptrack_ingest.idibu.sandbox_endpoint import matches
from apptrack_ingest.idibu.sandbox_script import Fault, Quirk, Step

HASH = "0123456789abcdef-s3cr3t/+ü"
PATH = "/ws/rest/v1/applicant-status"
SUCCESS = "<applicant><status>success</status></applicant>"


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False, timeout=10) as connected:
        yield connected


async def post(http: httpx.AsyncClient, applicant: object, data: str | None, hash: str = HASH) -> httpx.Response:
    return await http.post(f"{PATH}/{applicant}", params={"hash": hash}, data={} if data is None else {"data": data})


async def test_answers_as_documented(http: httpx.AsyncClient) -> None:
    answer = await post(http, 123, SUCCESS)
    assert answer.text == (
        '<?xml version="1.0" encoding="UTF-8"?>\n<idibu generator="idibu" version="1.0">'
        "<response>Applicant status saved</response><status>success</status></idibu>"
    )
    one = await http.get(f"{PATH}/123", params={"hash": HASH})
    assert one.text.partition("\n")[2] == (
        '<idibu generator="idibu" version="1.0"><response><applicant><id>123</id><status>success</status><remote-id/>'
        "<error-message/><date-processed>2023-11-14 22:13:20</date-processed><status-info>"
        "<date-created>2023-11-14 22:13:20</date-created><date-modified>2023-11-14 22:13:20</date-modified>"
        "</status-info></applicant></response><status>success</status></idibu>"
    )
    assert (await http.get(PATH, params={"hash": HASH, "id": "123"})).text == one.text
    assert (await http.get(PATH, params={"hash": HASH})).text == one.text


@pytest.mark.parametrize(
    ("applicant", "data", "hash", "words"),
    [
        (1, SUCCESS, "wrong", "Invalid hash"),
        (1, SUCCESS, "", "Invalid hash"),
        ("x", SUCCESS, HASH, "Invalid applicant id"),
        (0, SUCCESS, HASH, "Invalid applicant id"),
        ("9" * 30, SUCCESS, HASH, "Invalid applicant id"),
        (1, None, HASH, "No data"),
        (1, "", HASH, "No data"),
        (1, "<applicant>", HASH, "The data is no valid XML"),
        (1, "<!DOCTYPE applicant []>" + SUCCESS, HASH, "The data is no valid XML"),
        (1, "<candidate/>", HASH, "The data is no applicant"),
        (1, "<applicant/>", HASH, "No status"),
        (1, "<applicant><status>failed</status></applicant>", HASH, "Unknown status"),
        (1, SUCCESS.replace("</a", "<date-processed>today</date-processed></a"), HASH, "Invalid date-processed"),
        (
            1,
            SUCCESS.replace("</a", "<date-processed>2016-6-3 1:2:3</date-processed></a"),
            HASH,
            "Invalid date-processed",
        ),
    ],
)
async def test_refuses(
    sandbox: Sandbox, http: httpx.AsyncClient, applicant: object, data: str | None, hash: str, words: str
) -> None:
    answer = await post(http, applicant, data, hash)
    assert answer.status_code == 200
    assert f"<response>{words}</response><status>failed</status>" in answer.text
    assert not sandbox.applicants()
    assert sandbox.requests()[0].answer == f"failed: {words}"


async def _chunks() -> AsyncIterator[bytes]:
    yield b"data=" + SUCCESS.encode()


async def test_only_a_form_field_counts_and_bodies_are_bounded(sandbox: Sandbox, http: httpx.AsyncClient) -> None:
    url = f"{PATH}/1?hash=sandbox"
    sandbox.hashes["sandbox"] = "default"
    assert "No data" in (await http.post(url, content=SUCCESS, headers={"Content-Type": "text/xml"})).text
    assert "No data" in (await http.post(url, data={"data": "x" * 2**20})).text
    chunked = {"Content-Type": "application/x-www-form-urlencoded"}
    assert "No data" in (await http.post(url, content=_chunks(), headers=chunked)).text
    assert "No applicant id" in (await http.post(PATH + "?hash=sandbox&id=1", data={"data": SUCCESS})).text
    assert (await http.put(url)).status_code == 405


async def test_updates_in_place_and_tells_accounts_apart(sandbox: Sandbox, http: httpx.AsyncClient) -> None:
    fail = "<applicant><status>fail</status><error-message>no</error-message><remote-id>R</remote-id></applicant>"
    for data in (fail, fail, SUCCESS):
        await post(http, 5, data)
    await post(http, 5, fail, "other-hash")
    ours, theirs = sandbox.applicants()
    assert (ours.status, ours.error_message, ours.remote_id, ours.posts, ours.contents) == ("success", "", "", 3, 2)
    assert (theirs.account, theirs.status, theirs.posts, theirs.contents) == ("other", "fail", 1, 1)
    assert [request.repeated for request in sandbox.requests(5)] == [False, True, False, False]
    assert sandbox.applicants("other") == [theirs]


@pytest.mark.parametrize(
    ("params", "ids"),
    [
        ({}, range(1, 11)),
        ({"count": "3", "offset": "9"}, range(10, 13)),
        ({"limit": "3"}, range(1, 4)),
        ({"count": "2", "limit": "3"}, range(1, 3)),
        ({"count": "1000"}, range(1, 13)),
        ({"count": "0"}, range(1, 2)),
        ({"count": "x", "offset": "-1"}, range(1, 11)),
        ({"offset": "12"}, []),
        ({"remote-id": "R12"}, [12]),
        ({"remote-id": "*1*"}, [1, 10, 11, 12]),
        ({"remote-id": "r1"}, []),
    ],
)
async def test_lists(sandbox: Sandbox, http: httpx.AsyncClient, params: dict[str, str], ids: Collection[int]) -> None:
    for number in range(1, 13):
        await post(http, number, SUCCESS.replace("</a", f"<remote-id>R{number}</remote-id></a"))
    listed = (await http.get(PATH, params={"hash": HASH, **params})).text
    assert [f"<id>{number}</id>" in listed for number in range(1, 13)] == [number in ids for number in range(1, 13)]


@pytest.mark.parametrize(
    ("pattern", "text", "matched"),
    [
        ("*", "", True),
        ("a*", "abc", True),
        ("*c", "abc", True),
        ("a*c", "ac", True),
        ("a*a", "a", False),
        ("a*b*c", "axbxc", True),
        ("a*b*b", "ab", False),
        ("**", "x", True),
        ("a?[b]", "a?[b]", True),
        ("", "", True),
        ("", "a", False),
        ("*a" * 3000 + "b", "a" * 100_000, False),
    ],
)
def test_wildcard(pattern: str, text: str, matched: bool) -> None:
    assert matches(pattern, text) is matched


async def test_quirks_are_as_idibu_writes_them(sandbox: Sandbox, http: httpx.AsyncClient) -> None:
    seen = {}
    for quirk in Quirk:
        sandbox.misbehave(Step(quirks={quirk}), Step(quirks={quirk}))
        seen[quirk] = (await post(http, 1, SUCCESS)).text, (await post(http, 1, "<applicant/>")).text
    assert '<IDIBU GENERATOR="idibu" VERSION="1.0">' in seen[Quirk.UPPER_CASE][0]
    assert "<STATUS>FAILED</STATUS>" in seen[Quirk.UPPER_CASE][1]
    assert seen[Quirk.UTF8][0].startswith('<?xml version="1.0" encoding="utf8"?>')
    assert seen[Quirk.WHITE_SPACE][0].startswith("\r\n \t<?xml")
    assert (
        "<?xml version='1.0' encoding='UTF-8'?>\n<idibu generator='idibu' version='1.0'>"
        in seen[Quirk.SINGLE_QUOTES][0]
    )
    assert seen[Quirk.SHORT][0].endswith("\n<idibu><status>success</status></idibu>")
    assert seen[Quirk.FAIL][1].endswith("<status>fail</status></idibu>")
    assert "<response><message>No status</message></response>" in seen[Quirk.MESSAGE][1]
    assert "<log><errors><error>No status</error></errors></log>" in seen[Quirk.LOG_ERRORS][1]


async def test_script_over_http(sandbox: Sandbox, http: httpx.AsyncClient) -> None:
    steps = [
        {"fault": "error", "status": 502, "times": 2},
        {"fault": "busy", "retry_after": "30", "applicant": 7},
        {"fault": "failed", "text": "no\x00pe <&>", "applicant": 8, "times": None, "saves": True},
    ]
    assert (await http.post("/sandbox/script", json=steps)).status_code == 200
    assert len((await http.get("/sandbox/script")).json()) == 3
    assert [(await post(http, one, SUCCESS)).status_code for one in (7, 8, 7, 7)] == [502, 502, 429, 200]
    assert ["no" in (await post(http, 8, SUCCESS)).text for _ in range(3)] == [True] * 3
    assert "nope &lt;&amp;&gt;" in (await post(http, 8, SUCCESS)).text
    assert {held.id: held.posts for held in sandbox.applicants()} == {7: 1, 8: 4}
    await http.post("/sandbox/script", json=[])
    assert "success" in (await post(http, 8, SUCCESS)).text


@pytest.mark.parametrize(
    "script", ["no JSON", '{"fault": "error"}', '[{"fault": "x"}]', '[{"tmies": 1}]', '[{"times": 0}]']
)
async def test_a_wrong_script_changes_nothing(sandbox: Sandbox, http: httpx.AsyncClient, script: str) -> None:
    sandbox.misbehave(Step(fault=Fault.ERROR))
    answer = await http.post("/sandbox/script", content=script, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()[0]["msg"]
    assert (await http.post("/sandbox/script", content="[]")).status_code == 415
    assert sandbox.script.remaining() == [Step(fault=Fault.ERROR)]


async def test_hanging_and_closing(sandbox: Sandbox, http: httpx.AsyncClient) -> None:
    sandbox.misbehave(Step(fault=Fault.HANG), Step(fault=Fault.HANG, seconds=0), Step(fault=Fault.CLOSE))
    hanging = asyncio.create_task(post(http, 1, SUCCESS))
    await sandbox.wait_until(lambda told: len(told.requests(1)) == 1)
    assert "success" in (await post(http, 2, SUCCESS)).text
    with pytest.raises(httpx.TransportError):
        await post(http, 3, SUCCESS)
    assert not hanging.done()
    assert [request.answer for request in sandbox.requests()] == ["fault: hang", "fault: hang", "fault: close"]
    assert [held.id for held in sandbox.applicants()] == [2]
    sandbox.stop()
    with pytest.raises(httpx.TransportError):
        await hanging


async def test_waiting_has_an_end(sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutError):
        await sandbox.wait_until(lambda told: bool(told.requests()), timeout=0.01)


async def test_page_and_json_show_everything_but_hashes(sandbox: Sandbox, http: httpx.AsyncClient) -> None:
    assert "Nothing was reported yet." in (await http.get("/")).text
    message = "&lt;script&gt;alert(1)&lt;/script&gt;"
    script = f"<applicant><status>fail</status><error-message>{message}</error-message></applicant>"
    await post(http, 77, script)
    await post(http, 78, SUCCESS, "some-wrong-hash")
    sandbox.misbehave(Step(fault=Fault.ERROR))
    page = await http.get("/")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "<script" not in page.text
    assert "wrong hash" in page.text
    assert "[{&#34;fault&#34;:&#34;error&#34;}]" in page.text
    applicants = (await http.get("/sandbox/applicants")).json()
    requests = (await http.get("/sandbox/requests", params={"applicant": "77"})).json()
    assert [(held["id"], held["status"], held["posts"]) for held in applicants] == [(77, "fail", 1)]
    assert [(one["number"], one["data"], one["http_status"]) for one in requests] == [(1, script, 200)]
    everything = page.text + json.dumps(applicants + (await http.get("/sandbox/requests")).json())
    assert not any(secret in everything for secret in ("s3cr3t", "other-hash", "some-wrong-hash"))


async def test_what_it_was_told_survives(tmp_path: Path) -> None:
    file = tmp_path / "told.jsonl"
    for torn in (b"", b'{"at": 17'):
        async with running(Sandbox(file=file)) as sandbox, httpx.AsyncClient(base_url=sandbox.base_url) as http:
            before = len(sandbox.requests())
            await post(http, 5, SUCCESS, "sandbox")
            held, told = sandbox.applicants(), sandbox.requests()
            assert (held[0].posts, told[-1].repeated, told[-1].number) == (before + 1, before > 0, before + 1)
        with file.open("ab") as end:
            end.write(torn)
    again = Sandbox(file=file)
    assert (again.applicants(), again.requests()) == (held, told)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"hash" not in file.read_bytes()
    again.store.close()


SERVE = """
import asyncio, sys, pathlib
from apptrack_ingest.idibu.sandbox import serve
asyncio.run(serve("127.0.0.1", 0, pathlib.Path(sys.argv[1]), None, lambda url: print(url, flush=True)))
"""


async def test_nothing_confirmed_is_lost_when_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "told.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    url = await asyncio.to_thread(process.stdout.readline)
    confirmed = []
    with contextlib.suppress(httpx.TransportError):
        async with httpx.AsyncClient(base_url=url.strip(), trust_env=False) as http:
            for number in range(1, 1000):
                await post(http, number, SUCCESS, "sandbox")
                confirmed.append(number)
                if number == 20:
                    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    again = Sandbox(file=file)
    assert set(confirmed) <= {held.id for held in again.applicants()}
    assert len(confirmed) >= 20
    again.store.close()


async def test_serving_for_a_person_ends_by_being_cancelled_and_takes_no_signals() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve("127.0.0.1", 0, None, {"h": "acme"}, ready.set_result))
    url = await asyncio.wait_for(ready, 10)
    async with httpx.AsyncClient(trust_env=False) as http:
        assert "Account <strong>acme</strong>" in (await http.get(url)).text
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_port_in_use_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError):
        async with running(port=taken.getsockname()[1]):
            pass


async def test_only_the_documented_content_type_is_taken(sandbox: Sandbox, http: httpx.AsyncClient) -> None:
    answer = await http.post(f"{PATH}/1", params={"hash": HASH}, files={"data": (None, SUCCESS)})
    assert "No data" in answer.text and sandbox.applicants() == []
