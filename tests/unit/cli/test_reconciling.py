"""`reconcile` as a person gives it: what it prints, how it ends, and what it leaves in the history."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from apptrack_ingest.idibu import sandbox_store as store
from apptrack_ingest.idibu.sandbox import Sandbox, running
from apptrack_ingest.idibu.sandbox_applicants import NewApplicant
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.idibu.xml import fit
from apptrack_ingest.lifecycle import Event, report_of
from apptrack_ingest.model import ReportState, State
from apptrack_ingest.reconcile import MEANING, Kind
from apptrack_ingest.spool.contract import ReportSettlement, Settlement

from .conftest import HOSTILE, SECRET, House


class Beside:
    """A sandbox in a loop of its own, beside the commands, which run theirs."""

    def __init__(self) -> None:
        self.sandbox = Sandbox({SECRET: "acme"})
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        async with running(self.sandbox):
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> Sandbox:
        self._thread.start()
        assert self._ready.wait(30)
        return self.sandbox

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture
def sandbox(house: House) -> Iterator[Sandbox]:
    with Beside() as sandbox:
        house.config.write_text(
            f'{house.config.read_text()}\n[idibu]\nbase_url = "{sandbox.base_url}"\ntimeout = 5\nattempts = 1\n'
        )
        yield sandbox


def told(
    house: House, sandbox: Sandbox, applicant_id: int, *, shows: tuple[str, str] | None = ("success", "ats-1")
) -> int:
    """An application that was delivered and confirmed an hour ago; what idibu shows of it now."""
    application_id = house.put(applicant_id=applicant_id, received_at=house.now - 7200)
    then = time.time() - 3600
    due = report_of(State.DELIVERED, applicant_id=applicant_id, believed=True, now=then, remote_id="ats-1")

    async def work(spool: Any) -> None:
        for claim in await spool.claim(worker="w", now=time.time(), lease=60.0, limit=9):
            await spool.settle(claim, Settlement(Event.DELIVER, "delivered", remote_id="ats-1", report=due), now=then)
        for claim in await spool.claim_reports(worker="w", now=time.time(), lease=60.0, limit=9, accounts=["acme"]):
            await spool.settle_report(claim, ReportSettlement(ReportState.CONFIRMED, "confirmed"), now=then)

    house.do(work)
    if shows is not None:
        write(sandbox, applicant_id, *shows)
    return application_id


def write(sandbox: Sandbox, applicant_id: int, status: str, words: str) -> None:
    saved = store.Saved(status, words * (status == "success"), words * (status == "fail"), "2026-01-01 00:00:00")
    sandbox.store.add(
        store.Request(time.time(), "POST", "/elsewhere", "acme", applicant_id, None, "", 200, saved, call="elsewhere")
    )


def report_state(house: House, application_id: int) -> ReportState:
    return house.story(application_id).reports[-1].state


def test_they_agree(house: House, sandbox: Sandbox) -> None:
    told(house, sandbox, 1)
    said = house.run("reconcile", "--account", "acme").stdout
    assert said.startswith("acme: ledger and idibu agree (1 statuses and 1 outcomes since ")
    page = house.json("reconcile", "--account", "acme")
    (acme,) = page["accounts"]
    assert (acme["account"], acme["statuses"], acme["outcomes"], acme["applicants"]) == ("acme", 1, 1, 1)
    assert acme["findings"] == {kind.value: 0 for kind in Kind}
    assert (acme["shown"], acme["error"], page["left_out"]) == ([], None, [])


def test_each_finding_is_told_with_what_it_means_and_what_to_do(house: House, sandbox: Sandbox) -> None:
    told(house, sandbox, 1, shows=("fail", fit(HOSTILE)))
    lost = told(house, sandbox, 2, shows=None)
    write(sandbox, 3, "success", "theirs")
    sandbox.arrive(NewApplicant(account="acme", id=4, date=time.time() - 7200))
    result = house.run("reconcile", "--account", "acme", code=1)
    assert "\x9b" not in result.stdout and "\u202e" not in result.stdout
    assert "fail [2J[bold red]:boom:[/]" in result.stdout
    for kind in (Kind.DIFFERENT, Kind.MISSING, Kind.NOT_OURS, Kind.NO_MAIL):
        assert f"{kind.value}: {MEANING[kind]}\n" in result.stdout
    assert "acme: 1 missing, 1 different, 1 not-ours, 1 no-mail" in result.stdout
    (acme,) = house.json("reconcile", "--account", "acme", code=1)["accounts"]
    (missing,) = [one for one in acme["shown"] if one["finding"] == "missing"]
    assert missing == {
        "finding": "missing",
        "applicant_id": 2,
        "application_id": lost,
        "report_id": house.story(lost).reports[-1].report_id,
        "ours": "success ats-1",
        "theirs": None,
        "meaning": MEANING[Kind.MISSING],
    }
    assert report_state(house, lost) is ReportState.CONFIRMED, "without --fix nothing is changed"


def test_fix_makes_them_due_again_and_stands_in_the_history(house: House, sandbox: Sandbox) -> None:
    lost, fine = told(house, sandbox, 1, shows=None), told(house, sandbox, 2)
    dry = house.run("reconcile", "--account", "acme", "--fix", "--dry-run", code=1).stdout
    assert "acme: 1 would be told again" in dry
    assert report_state(house, lost) is ReportState.CONFIRMED
    said = house.run("reconcile", "--account", "acme", "--fix").stdout
    assert "acme: 1 due again, a running `serve` sends them" in said
    assert (report_state(house, lost), report_state(house, fine)) == (ReportState.DUE, ReportState.CONFIRMED)
    (order,) = house.json("history")
    assert (order["action"], order["account"], order["done"], order["refused"]) == ("reconcile", "acme", 1, 0)
    assert "reconcile: idibu shows no outcome" in house.run("show", lost).stdout
    # Given again there is nothing left to do, and what waits is no fault.
    page = house.json("reconcile", "--account", "acme", "--fix")["accounts"][0]
    assert (page["findings"]["due"], page["told_again"], page["fixable"]) == (1, 0, 0)


def test_all_accounts_that_can_be_asked_about(house: House, sandbox: Sandbox) -> None:
    told(house, sandbox, 1)
    page = house.json("reconcile")
    assert [one["account"] for one in page["accounts"]] == ["acme"]
    assert page["left_out"] == ["beta", "quiet"]
    assert "left out, without a hash or not reported for: beta, quiet" in house.run("reconcile").stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--account", "nobody"), 3, "there is no account nobody in the settings; there are: acme, beta, quiet"),
        (("--account", "beta"), 4, "account beta has no hash to ask idibu with"),
        (("--account", "quiet"), 4, "is not reported for"),
        (("--dry-run",), 2, "--dry-run goes with --fix"),
        (("--since", "yesterday"), 2, "is neither an age"),
        (("--throttle", "fast"), 2, "is no rate"),
    ],
)
def test_what_cannot_be_done(house: House, sandbox: Sandbox, words: tuple[str, ...], code: int, says: str) -> None:
    told(house, sandbox, 1)
    assert says in house.run("reconcile", *words, code=code).stderr
    assert not [one for one in sandbox.requests() if one.call != "elsewhere"]


def test_without_a_spool(house: House, sandbox: Sandbox) -> None:
    assert "there is no spool" in house.run("reconcile", code=3).stderr


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (Step(fault=Fault.CLOSE, times=None), "idibu could not be asked to the end (the exchange broke off"),
        (Step(fault=Fault.UNAUTHORIZED, times=None), "idibu does not accept its hash"),
        (Step(fault=Fault.HTML, times=None), "idibu could not be asked to the end (HTTP 200, text/html"),
    ],
    ids=["away", "unauthorized", "a proxy"],
)
def test_idibu_in_trouble_is_a_sentence_and_fixes_nothing(
    house: House, sandbox: Sandbox, step: Step, says: str
) -> None:
    lost = told(house, sandbox, 1, shows=None)
    sandbox.misbehave(step)
    result = house.run("reconcile", "--account", "acme", "--fix", code=1)
    assert f"acme: error: {says}" in result.stderr.replace("\n", " ")
    assert SECRET not in result.output
    assert report_state(house, lost) is ReportState.CONFIRMED
    assert house.json("reconcile", code=1)["accounts"][0]["error"].startswith(says[:30])
    assert house.json("history") == []


def test_an_account_without_the_list_of_applicants(house: House, sandbox: Sandbox) -> None:
    told(house, sandbox, 1)
    sandbox.misbehave(Step(fault=Fault.FAILED, call="applicants", times=None))
    said = house.run("reconcile").stdout
    assert "idibu's list of applicants could not be had (refused)" in said
    assert house.json("reconcile")["accounts"][0]["applicants_unavailable"] == "refused"


def test_an_hour_ago_and_a_pace(house: House, sandbox: Sandbox) -> None:
    told(house, sandbox, 1, shows=None)  # received two hours ago
    assert "agree" in house.run("reconcile", "--since", "1h", "--throttle", "50/s").stdout
    assert json.loads(house.run("reconcile", "--since", "3h", "--json", code=1).stdout)["accounts"][0]["fixable"] == 1
