"""Changes an account's Global CC without losing an address: idibu's service replaces the whole list.

So the present list is read, again just before it is set, and once more to see what became of it (setccemail and
getccemail of seed-service-management.txt). What another change does between the second reading and the setting cannot be
seen by anybody; the window is as short as two requests.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import SecretStr

from apptrack_ingest.errors import IdibuError, NotAllowed
from apptrack_ingest.idibu.service_management import ServiceManagement

_ONE_ADDRESS = re.compile(r"""[^\s,;<>"@]+@[^\s,;<>"@]+""")


class CcConflict(NotAllowed):
    """The Global CC is not, or cannot be kept, as it was read; the text says what was found, and whether it was set."""


@dataclass(frozen=True, slots=True)
class CcChange:
    """The Global CC before and after."""

    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything had to be changed."""
        return not _same(self.before, self.after)


def among(addresses: Iterable[str], address: str) -> bool:
    """Whether the address is one of these, capitals or not."""
    return address.casefold() in map(str.casefold, addresses)


def planned(present: tuple[str, ...], add: Iterable[str] = (), remove: Iterable[str] = ()) -> CcChange:
    """The list with these added at its end and those taken out; what is there already, or is not, changes nothing."""
    unwanted = tuple(remove)
    after = [address for address in present if not among(unwanted, address)]
    for address in add:
        if not among(after, address):
            after.append(address)
    return CcChange(present, tuple(after))


async def change_cc(service: ServiceManagement, plan: CcChange, account: SecretStr | None = None) -> CcChange:
    """Makes the account's Global CC what is planned, if it is still what it was when the plan was made; what it is then.

    Raises CcConflict where it is not, where it holds what could not be sent back as it is, or where something else
    stands in it afterwards; an IdibuError, where the change was not made or nobody can tell.
    """
    if not plan.changed:
        return plan
    _refuse_what_would_break(plan.before)
    now = (await service.get_cc_email(account)).addresses
    if not _same(now, plan.before):
        raise CcConflict(f"the Global CC was changed in between; now: {_listed(now)}; nothing was set, try again")
    failure = await _set(service, plan, account)
    found = await _found(service, account, failure)
    if _as_planned(found, plan):
        return CcChange(plan.before, found)
    if failure is not None:
        raise failure
    raise CcConflict(f"idibu said that the Global CC was set, and shows another one: {_listed(found)}")


async def _set(service: ServiceManagement, plan: CcChange, account: SecretStr | None) -> IdibuError | None:
    """None, or why it is not known to be set: an answer that was lost says nothing about what was done.

    Asked once only: a repetition after seconds of waiting would undo what somebody else did in them.
    """
    try:
        await service.set_cc_email(plan.after, account, kept=plan.before, once=True)
    except IdibuError as error:
        if not error.temporary:
            raise
        return error
    return None


async def _found(service: ServiceManagement, account: SecretStr | None, failure: IdibuError | None) -> tuple[str, ...]:
    """What the list is now. Raises the failure where that cannot be found out either."""
    try:
        return (await service.get_cc_email(account)).addresses
    except IdibuError:
        if failure is None:
            raise
    raise failure


def _as_planned(found: tuple[str, ...], plan: CcChange) -> bool:
    """All that was to be there is, and nothing that was to go; what another added since is none of our business."""
    gone = [address for address in plan.before if not among(plan.after, address)]
    return all(among(found, address) for address in plan.after) and not any(among(found, address) for address in gone)


def _refuse_what_would_break(present: tuple[str, ...]) -> None:
    odd = [address for address in present if not _ONE_ADDRESS.fullmatch(address)]
    if odd:
        raise CcConflict(
            f"the Global CC holds what is no plain address ({_listed(tuple(odd))}) and would not come back as it is:"
            " put that right in the account at idibu first"
        )


def _same(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return {address.casefold() for address in one} == {address.casefold() for address in other}


def _listed(addresses: tuple[str, ...]) -> str:
    return ", ".join(addresses) or "none"
