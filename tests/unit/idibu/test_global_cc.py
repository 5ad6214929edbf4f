"""A change of the Global CC keeps every address that it is not about, and made twice is made once."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from apptrack_ingest.idibu import CcConflict, Client, IdibuBusy, Retry, answers, change_cc, planned, service_answers
from apptrack_ingest.idibu.global_cc import among
from apptrack_ingest.idibu.sandbox import Sandbox
from apptrack_ingest.idibu.sandbox_script import Fault, Step

from .conftest import HASH, PARTNER

ADDRESSES = st.sampled_from(["a@x.example", "A@x.example", "b@x.example", "c@x.example", "d@y.example"])
LISTS = st.lists(ADDRESSES, max_size=5, unique_by=str.casefold).map(tuple)


@given(present=LISTS, add=LISTS, remove=LISTS)
def test_a_plan_is_about_what_it_names_and_nothing_else(
    present: tuple[str, ...], add: tuple[str, ...], remove: tuple[str, ...]
) -> None:
    plan = planned(present, add=add, remove=remove)
    others = [one for one in present if not among((*add, *remove), one)]
    assert [one for one in plan.after if not among((*add, *remove), one)] == others
    assert all(among(plan.after, one) for one in add)
    assert not any(among(plan.after, one) for one in remove if not among(add, one))
    assert len({one.casefold() for one in plan.after}) == len(plan.after)
    assert not planned(plan.after, add=add).changed


@dataclass
class Meddler:
    """Somebody else, who changes the list whenever it was read so many times."""

    client: Client
    at: int
    reads: int = 0
    set: list[tuple[str, ...]] = field(default_factory=list)

    async def get_cc_email(self, account: object = None) -> object:
        found = await self.client.service.get_cc_email()
        self.reads += 1
        if self.reads == self.at:
            await self.client.service.set_cc_email(["theirs@x.example"])
        return found

    async def set_cc_email(
        self, addresses: tuple[str, ...], account: object = None, *, kept: object = (), once: bool = False
    ) -> object:
        self.set.append(addresses)
        return await self.client.service.set_cc_email(addresses)


async def test_a_change_made_while_a_person_was_asked_is_not_lost(sandbox: Sandbox, client: Client) -> None:
    await client.service.set_cc_email(["boss@x.example"])
    plan = planned((await client.service.get_cc_email()).addresses, add=["ours@x.example"])
    await client.service.set_cc_email(["boss@x.example", "theirs@x.example"])
    with pytest.raises(CcConflict, match="theirs@"):
        await change_cc(client.service, plan)
    assert sandbox.accounts()[0].cc == ("boss@x.example", "theirs@x.example")


async def test_what_cannot_be_kept_from_being_lost_is_set_and_looked_at(sandbox: Sandbox, client: Client) -> None:
    """Between the second reading and the setting nobody sees anything; afterwards the list is what was planned."""
    meddler = Meddler(client, at=1)
    done = await change_cc(meddler, planned((), add=["ours@x.example"]))  # type: ignore[arg-type]
    assert (done.before, done.after, meddler.reads) == ((), ("ours@x.example",), 2)
    meddler = Meddler(client, at=0)
    await change_cc(meddler, planned(done.after))  # type: ignore[arg-type]
    assert (meddler.reads, meddler.set) == (0, [])


async def test_a_success_that_cannot_be_looked_at_is_an_error(sandbox: Sandbox, client: Client) -> None:
    sandbox.misbehave(Step(call="getccemail"), Step(fault=Fault.CLOSE, call="getccemail"))
    with pytest.raises(Exception, match="broke off"):
        await change_cc(client.service, planned((), add=["ours@x.example"]))
    assert sandbox.accounts()[0].cc == ("ours@x.example",)


@pytest.mark.parametrize("saves", [False, True])
async def test_a_setting_that_failed_is_not_repeated_over_what_was_changed_meanwhile(
    sandbox: Sandbox, client: Client, saves: bool
) -> None:
    async def meddle(_seconds: float) -> None:
        await client.service.set_cc_email(["boss@x.example", "theirs@x.example"])

    await client.service.set_cc_email(["boss@x.example"])
    sandbox.misbehave(Step(fault=Fault.BUSY, call="setccemail", saves=saves))
    async with Client(sandbox.base_url, SecretStr(HASH), partner=PARTNER, retry=Retry(sleep=meddle)) as patient:
        plan = planned(("boss@x.example",), add=["ours@x.example"])
        if saves:
            assert (await change_cc(patient.service, plan)).after == ("boss@x.example", "ours@x.example")
        else:
            with pytest.raises(IdibuBusy):
                await change_cc(patient.service, plan)
            await meddle(0)
            done = await change_cc(
                patient.service, planned((await patient.service.get_cc_email()).addresses, add=["ours@x.example"])
            )
            assert done.after == ("boss@x.example", "theirs@x.example", "ours@x.example")
    assert len([one for one in sandbox.requests() if one.call == "setccemail"]) == (2 if saves else 4)


@pytest.mark.parametrize(
    "inner",
    [
        "<cc-email><email>boss@x.example</email><email>archive@x.example</email></cc-email>",
        "<cc-emails><cc-email>boss@x.example</cc-email><cc-email>archive@x.example</cc-email></cc-emails>",
        "<CC-EMAIL>boss@x.example; <a>archive@x.example</a></CC-EMAIL>",
    ],
)
def test_no_address_is_overlooked_however_it_is_wrapped(inner: str) -> None:
    body = f"<idibu><response>{inner}</response><status>success</status></idibu>".encode()
    assert service_answers.global_cc(answers.read(body)).addresses == ("boss@x.example", "archive@x.example")
