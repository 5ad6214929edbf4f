"""Each fault of idibu at each call that is made: told as an error, never as a finding, and nothing is changed by it."""

import pytest
from reconciled import Reconciled

from apptrack_ingest.errors import IdibuError, IdibuUnauthorized, IdibuUnreachable, SpoolUnavailable
from apptrack_ingest.idibu.sandbox_applicants import NewApplicant
from apptrack_ingest.idibu.sandbox_script import Fault, Step
from apptrack_ingest.model import ReportState
from apptrack_ingest.reconcile import Kind

FAULTS = [
    Step(fault=Fault.ERROR),
    Step(fault=Fault.ERROR, status=404),
    Step(fault=Fault.HTML),
    Step(fault=Fault.EMPTY),
    Step(fault=Fault.EMPTY, status=401),
    Step(fault=Fault.FAILED),
    Step(fault=Fault.FAILED, status=500),
    Step(fault=Fault.UNAUTHORIZED),
    Step(fault=Fault.UNAUTHORIZED, status=200),
    Step(fault=Fault.BUSY, retry_after="7"),
    Step(fault=Fault.REDIRECT, text="/elsewhere"),
    Step(fault=Fault.CLOSE),
    Step(fault=Fault.HANG),
    Step(status=500),
]
"""Every fault of the sandbox's switch."""

LIST, ONE, APPLICANTS = {"call": "applicant-status"}, {"applicant": 2}, {"call": "applicants"}
NO_SUCH_APPLICANT = Step(fault=Fault.FAILED)
"""What idibu says of an applicant it does not know is no fault there."""


@pytest.fixture
async def troubled(world: Reconciled) -> Reconciled:
    """Applicant 1 overwritten, 2 lost, 3 due, 4 whose mail never came; and a client that does not wait for long."""
    await world.told(1, 2)
    world.write(1, "fail", "theirs")
    world.sandbox.store.lose("acme", 2)
    world.sandbox.misbehave(Step(fault=Fault.CLOSE))
    await world.apply(3)
    await world.work()
    world.sandbox.arrive(NewApplicant(account="acme", id=4, date=world.clock.now() - 7200))
    world.sandbox.misbehave()
    world.accounts["acme"].client._calls._timeout = 0.5
    return world


ALL = {(Kind.DIFFERENT, 1), (Kind.MISSING, 2), (Kind.DUE, 3), (Kind.NO_MAIL, 4)}


async def found(world: Reconciled) -> tuple[set[tuple[Kind, int]], IdibuError | None, str]:
    looked = await world.look()
    return {(one.kind, one.applicant_id) for one in looked.shown}, looked.error, looked.unavailable


async def test_without_a_fault_all_is_found(troubled: Reconciled) -> None:
    assert await found(troubled) == (ALL, None, "")


@pytest.mark.parametrize("step", FAULTS, ids=str)
@pytest.mark.parametrize("call", [LIST, ONE, APPLICANTS], ids=["list", "one", "applicants"])
async def test_each_fault_at_each_call(troubled: Reconciled, step: Step, call: dict[str, object]) -> None:
    before = [(one.report_id, one.state) for one in await troubled.spool.outcomes("acme", range(9))]
    held = troubled.sandbox.applicants("acme")
    troubled.sandbox.misbehave(step.model_copy(update={**call, "times": None}))
    findings, error, unavailable = await found(troubled)
    assert findings <= ALL, "nothing is found that is not so"
    if call is APPLICANTS:
        assert (findings, error) == (ALL - {(Kind.NO_MAIL, 4)}, None)
        assert unavailable in ("not-understood", "unauthorized", "refused", "busy", "unreachable")
    elif call is ONE and step == NO_SUCH_APPLICANT:
        assert (findings, error) == (ALL, None)
    else:
        assert error is not None
        assert (Kind.MISSING, 2) not in findings
        assert ((Kind.DIFFERENT, 1) in findings) is (call is ONE)
    assert [(one.report_id, one.state) for one in await troubled.spool.outcomes("acme", range(9))] == before
    assert troubled.sandbox.applicants("acme") == held
    troubled.sandbox.misbehave()
    assert await found(troubled) == (ALL, None, ""), "and once it is over, all is found"


@pytest.mark.parametrize("step", FAULTS, ids=str)
async def test_each_fault_while_what_was_fixed_is_sent(troubled: Reconciled, step: Step) -> None:
    """The worker's retries see to it, as to any report."""
    await troubled.fix()
    troubled.reporter._clients["acme"][0]._calls._timeout = 0.5
    troubled.sandbox.misbehave(step.model_copy(update={"times": 2}))
    await troubled.work()
    troubled.sandbox.misbehave()
    for _ in range(30):
        troubled.clock.time += 600
        await troubled.work()
    assert {one.state for one in await troubled.spool.outcomes("acme", (1, 2, 3))} == {ReportState.CONFIRMED}
    assert troubled.shown(2) == ("success", "remote-2", "")
    assert (await found(troubled))[0] == {(Kind.NO_MAIL, 4)}


async def test_a_fault_in_the_middle_of_a_list(world: Reconciled) -> None:
    """What was found until then holds; what was not seen is not taken for missing."""
    await world.told(1, 2)
    world.write(1, "fail", "theirs")
    world.sandbox.store.lose("acme", 2)
    for n in range(3, 121):
        world.write(n, "success", "theirs")
    client = world.accounts["acme"].client
    fetched = client._calls.call

    async def second_page_fails(request):  # type: ignore[no-untyped-def]
        if request.params.get("offset") == "100":
            raise IdibuUnreachable("no answer")
        return await fetched(request)

    client._calls.call = second_page_fails  # type: ignore[method-assign]
    looked = await world.look()
    assert looked.counts == {Kind.DIFFERENT: 1, Kind.NOT_OURS: 99}
    assert isinstance(looked.error, IdibuUnreachable)


async def test_a_server_that_does_not_page_hides_nothing(world: Reconciled) -> None:
    """It lists the same ten for ever; the others are asked for one by one."""
    await world.told(*range(1, 15))
    world.sandbox.store.lose("acme", 13)
    client = world.accounts["acme"].client
    fetched = client._calls.call

    async def first_ten(request):  # type: ignore[no-untyped-def]
        if "offset" in request.params:
            request = type(request)(
                request.method, request.path, {**request.params, "offset": "0", "count": "10", "limit": "10"}
            )
        return await fetched(request)

    client._calls.call = first_ten  # type: ignore[method-assign]
    assert (await found(world))[0] == {(Kind.MISSING, 13)}


async def test_a_wrong_hash_is_told_as_such(troubled: Reconciled) -> None:
    troubled.sandbox.hashes.clear()
    findings, error, _ = await found(troubled)
    assert (findings, type(error)) == (set(), IdibuUnauthorized)


async def test_a_spool_that_is_away_is_not_hidden(troubled: Reconciled) -> None:
    await troubled.spool.close()
    with pytest.raises(SpoolUnavailable):
        await troubled.look()
