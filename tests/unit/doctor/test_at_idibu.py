"""idibu's side, over HTTP to the sandbox and its faults: reached or not, the hash, the Global CC, the clock."""

import time

import pytest
from pydantic import SecretStr

from apptrack_ingest.doctor import at_idibu
from apptrack_ingest.doctor.finding import Level
from apptrack_ingest.doctor.spool import clock
from apptrack_ingest.idibu import Client, Partner
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.settings import Settings

HASH, PASSWORD, TOKEN = "h4sh-of-acme/+", "p4rtner <w0rd>", "w0nderf0rd"
OURS = "applications@in.acme.example"


@pytest.fixture
async def sandbox():
    async with running(Sandbox({HASH: "acme"}, partner=Partner(77, SecretStr(PASSWORD)))) as made:
        yield made


def configured(sandbox, partner=True, idibu=None, **account):
    accounts = {"acme": {"hash": HASH, "recipients": [OURS], **account}}
    with_partner = {"partner_id": 77, "partner_password": PASSWORD} if partner else {}
    return Settings(
        accounts=accounts, idibu={"base_url": sandbox.base_url, "timeout": 2.0, **with_partner, **(idibu or {})}
    )


async def look(found):
    """Level and words by the name of the look; none of them holds a secret."""
    accounts = dict(found.known_accounts)
    findings = [finding for check in at_idibu.checks(found, accounts) for finding in await check.findings()]
    for finding in findings:
        said = repr(finding)
        assert not any(secret in said for secret in (HASH, PASSWORD, TOKEN, "h4sh", "w0rd")), said
        assert bool(finding.advice) == (finding.level is not Level.OK)
    return {finding.check: finding for finding in findings}


async def connect(sandbox, *addresses):
    partner = Partner(77, SecretStr(PASSWORD))
    async with Client(sandbox.base_url, SecretStr(HASH), partner=partner) as client:
        await client.service.set_cc_email(addresses)


async def test_all_is_well(sandbox):
    await connect(sandbox, "boss@acme.example", OURS)
    found = await look(configured(sandbox))
    assert [one.level for one in found.values()] == [Level.OK] * 3
    assert found["Global CC of acme"].found == "1 of its 2 addresses leads here"


async def test_nothing_is_changed_at_idibu(sandbox):
    await connect(sandbox, OURS)
    before = len(sandbox.requests())
    await look(configured(sandbox))
    asked = sandbox.requests()[before:]
    assert all(request.change is None and request.saved is None for request in asked)
    assert sandbox.accounts()[0].cc == (OURS,)


@pytest.mark.parametrize("status", [200, 401, 403])
async def test_a_wrong_hash_fails(sandbox, status):
    sandbox.wrong_hash_status = status
    found = await look(configured(sandbox, partner=False, hash="another-wr0ng-one"))
    assert found["hash of acme"].level is Level.FAIL and "does not take it" in found["hash of acme"].found


@pytest.mark.parametrize(
    ("fault", "level"),
    [
        (Fault.ERROR, Level.FAIL),
        (Fault.HTML, Level.FAIL),
        (Fault.EMPTY, Level.FAIL),
        (Fault.FAILED, Level.WARN),
        (Fault.UNAUTHORIZED, Level.FAIL),
        (Fault.BUSY, Level.FAIL),
        (Fault.REDIRECT, Level.FAIL),
        (Fault.CLOSE, Level.FAIL),
    ],
)
async def test_each_fault_is_told_and_the_other_looks_go_on(sandbox, fault, level):
    await connect(sandbox, OURS)
    sandbox.misbehave(Step(fault=fault, call="applicant-status", times=None))
    found = await look(configured(sandbox, idibu={"attempts": 1}))
    assert found["hash of acme"].level is level
    assert found["Global CC of acme"].level is Level.OK


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.HTML, Fault.FAILED, Fault.CLOSE])
async def test_a_global_cc_that_cannot_be_read_is_warned_of(sandbox, fault):
    sandbox.misbehave(Step(fault=fault, call="getccemail", times=None))
    found = await look(configured(sandbox, idibu={"attempts": 1}))
    assert found["Global CC of acme"].level is Level.WARN
    assert found["hash of acme"].level is Level.OK


async def test_a_global_cc_without_us_is_warned_of_and_not_told(sandbox):
    await connect(sandbox, f"other+{TOKEN}@elsewhere.example")
    found = await look(configured(sandbox))
    assert (
        found["Global CC of acme"].level is Level.WARN and "connect --account acme" in found["Global CC of acme"].advice
    )


async def test_an_address_with_a_token_counts_as_ours(sandbox):
    await connect(sandbox, f"applications+{TOKEN}@in.acme.example")
    assert (await look(configured(sandbox)))["Global CC of acme"].level is Level.OK


async def test_wrong_credentials_of_the_partner_fail(sandbox):
    found = await look(configured(sandbox, idibu={"partner_id": 78}))
    assert found["Global CC of acme"].level is Level.FAIL and "partner_password" in found["Global CC of acme"].advice


async def test_what_is_not_there_is_not_asked(sandbox):
    found = await look(configured(sandbox, partner=False))
    assert found["Global CC of acme"].level is Level.OK and "not looked at" in found["Global CC of acme"].found
    before = len(sandbox.requests())
    found = await look(configured(sandbox, hash=None))
    assert found["hash of acme"].level is Level.WARN
    found = await look(configured(sandbox, hash=None, reporting=False))
    assert found["hash of acme"].level is Level.OK
    assert [one.call for one in sandbox.requests()[before:] if one.call == "applicant-status"] == []


async def test_an_idibu_that_nobody_reports_to_may_be_away():
    nobody = type("Nobody", (), {"base_url": "http://127.0.0.1:9"})
    found = await look(configured(nobody, partner=False, reporting=False))
    assert {one.level for one in found.values()} == {Level.OK} and "clock of idibu" not in found


async def test_an_idibu_that_is_not_there_fails():
    found = await look(configured(type("Nobody", (), {"base_url": "http://127.0.0.1:9"}), partner=False))
    assert [found[name].level for name in ("clock of idibu", "hash of acme")] == [Level.FAIL, Level.FAIL]


@pytest.mark.parametrize(
    ("ours", "level"), [(0.0, Level.OK), (-40.0, Level.WARN), (40.0, Level.WARN), (4000.0, Level.FAIL)]
)
async def test_the_clock_is_held_against_the_date_of_idibus_answer(sandbox, monkeypatch, ours, level):
    now = time.time
    monkeypatch.setattr(at_idibu.time, "time", lambda: now() + ours)
    finding = (await look(configured(sandbox, partner=False)))["clock of idibu"]
    assert finding.level is level
    if ours:
        assert ("ahead" in finding.found) == (ours > 0)


@pytest.mark.parametrize(
    ("behind", "level"), [(3.0, Level.OK), (-3.0, Level.OK), (3.5, Level.WARN), (-30.0, Level.WARN), (31.0, Level.FAIL)]
)
def test_how_far_two_clocks_may_be_apart(behind, level):
    assert clock("clock of the database", behind, most=30.0).level is level
