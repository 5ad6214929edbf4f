"""`forget`: erases one person everywhere, says what it did, and keeps a digest as the proof."""

import asyncio
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from apptrack_ingest import handoff
from apptrack_ingest.cli.common import FAILED, actor, config_option, errors_as_exit_codes, json_option, run
from apptrack_ingest.cli.orders import Order, order_of
from apptrack_ingest.cli.showing import local, print_json, say
from apptrack_ingest.errors import BeingWorkedOn, IngestError, NotAllowed, NotFound, Unreadable
from apptrack_ingest.handoff.forgetting import can_forget
from apptrack_ingest.handoff.forgetting import forget as ask_to_forget
from apptrack_ingest.lifecycle import WAITING, Event, report_of
from apptrack_ingest.model import Person, Report, State
from apptrack_ingest.phrases import ON_REQUEST
from apptrack_ingest.spool.contract import Action, Filter, Forgotten, Trace
from apptrack_ingest.spool.persons import folded

PAGE = 100
"""Mails that nobody has read yet, looked through in one page."""

PATIENCE = 60.0
"""Seconds to wait while a report of theirs is on its way to idibu: twice what one may take."""

LOOK_EVERY = 0.2
"""Seconds between two tries."""


@dataclass(frozen=True, slots=True)
class Request:
    """Whom to forget, by whose word, and how to go about it."""

    address: str
    note: str
    yes: bool
    as_json: bool


@click.command(short_help="Erase one person everywhere.")
@click.argument("address")
@click.option("--check", is_flag=True, help="Only say whether the person was forgotten, and what is known of them now.")
@click.option("--reason", default="", metavar="TEXT", help="Why, without naming anybody; kept in the history.")
@click.option("--yes", is_flag=True, help="Do not ask before it is done.")
@config_option
@json_option
@errors_as_exit_codes
def forget(address: str, check: bool, reason: str, yes: bool, config: Path | None, as_json: bool) -> None:
    """Erase the candidate with the e-mail ADDRESS everywhere: mails, names and words in the spool, and what handlers keep
    of them if they can erase it. What still waits is discarded, and idibu is told so.

    With - the address is read from standard input, which keeps it out of the process list and the shell's history. Ids,
    digests and times stay, and of the address a digest, by which --check can tell that it was done. Nothing can be undone.
    """
    given = sys.stdin.readline().strip() if address == "-" else address.strip()
    local_part, at, domain = given.rpartition("@")
    if not (local_part and at and domain) or not given.isprintable() or " " in given:
        raise click.UsageError("ADDRESS must be an e-mail address, like jane.doe@example.com")
    request = Request(given, reason, yes, as_json)
    sys.exit(run(_check(config, request) if check else _forget(config, request)))


# --- has it been done? -----------------------------------------------------------------------------------------------


async def _check(config: Path | None, request: Request) -> int:
    async with order_of(config, request.note) as order:
        done = await order.spool.forgotten(request.address)
        known = await _known(order, request.address)
    left = [trace.application_id for trace in known if not trace.erased]
    if request.as_json:
        print_json({"forgotten": done, "applications": left})
    else:
        for each in done:
            say(f"forgotten {local(each.at)} by {each.actor}: {_count(each.applications)}, digest {each.digest}")
        if not done:
            say("was not forgotten here")
        say(f"{_count(len(left))} of this person in the spool now" + (f": {_ids(left)}" if left else ""))
    return 0 if done and not left else FAILED


# --- doing it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What a handler did: how many records it `erased`; None: it cannot forget, and `remote_ids` must be erased by hand."""

    account: str
    handler: str
    erased: int | None
    remote_ids: tuple[str, ...]


async def _forget(config: Path | None, request: Request) -> int:
    async with order_of(config, request.note) as order:
        traces = await _traces(order, request.address)
        _ask(request, traces)
        discarded = await _discard_what_waits(order, traces)
        asked = await _ask_handlers(order, request.address, traces)
        if not traces and not any(each.erased for each in asked):
            raise NotFound("nothing is known of this address: no application in the spool, no record of a handler")
        left = await _erase(order, request, traces)
        again = [each for each in await _known(order, request.address) if not each.erased]
    _tell(request, traces, discarded, asked, left)
    if again:
        raise NotAllowed(f"{_count(len(again))} of this person came in meanwhile; give the command again")
    return 0


async def _traces(order: Order, address: str) -> list[Trace]:
    """All applications of the person; NotAllowed while one of them is being worked on."""
    traces = await _known(order, address)
    if busy := [trace.application_id for trace in traces if trace.in_work]:
        raise NotAllowed(f"being worked on at this moment: {_ids(busy)}; nothing was done, try again soon")
    return traces


async def _known(order: Order, address: str) -> list[Trace]:
    return await order.spool.traces(address, await _unread(order, address))


async def _unread(order: Order, address: str) -> list[int]:
    """Those of the person among the applications whose mail nobody has read yet: each is read now."""
    found: list[int] = []
    last = 0
    while page := await order.spool.find(Filter(unread=True, after_id=last, oldest_first=True, limit=PAGE)):
        for row in page:
            if await _is_from(order, row.message_id, address):
                found.append(row.application_id)
        last = page[-1].application_id
    return found


async def _is_from(order: Order, message_id: int, address: str) -> bool:
    try:
        parsed = await order.parser.parse(await order.spool.raw(message_id))
    except (NotFound, Unreadable):
        return False
    return folded(parsed.candidate.email or "") == folded(address)


def _ask(request: Request, traces: Collection[Trace]) -> None:
    if request.yes:
        return
    if request.as_json or not sys.stdin.isatty():
        raise click.UsageError(f"{_count(len(traces))} would be erased; --yes says that this is meant")
    waits = [trace.application_id for trace in traces if trace.state in WAITING]
    say(f"{_count(len(traces))} of this person in the spool: {_ids([trace.application_id for trace in traces])}")
    if waits:
        say(f"of these still wait, and are discarded: {_ids(waits)}")
    click.confirm("Erase all of it, also what handlers keep? It cannot be undone.", abort=True, err=True)


async def _discard_what_waits(order: Order, traces: Collection[Trace]) -> list[int]:
    """First, so that nothing more of the person is handed over while the rest is erased; the newest first, for an older one
    that is gone lets the next of the applicant be handed over."""
    discarded: list[int] = []
    for trace in sorted(traces, key=lambda trace: -trace.application_id):
        if trace.state in WAITING:
            action = Action(Event.FORGET, actor(), "", report=_report(order, trace))
            try:
                await order.spool.act(trace.application_id, action, now=time.time())
            except NotAllowed as error:
                raise NotAllowed(f"{error}; discarded so far: {_ids(discarded)}, and nothing was erased") from None
            discarded.append(trace.application_id)
    return sorted(discarded)


def _report(order: Order, trace: Trace) -> Report | None:
    """What idibu is told of it, if anything may be said."""
    account = order.found.known_accounts.get(trace.account or "")
    if account is None or not account.reporting:
        return None
    return report_of(
        State.DISCARDED,
        applicant_id=trace.applicant_id,
        believed=trace.believed,
        now=time.time(),
        reason=trace.reason,
        words=ON_REQUEST,
    )


async def _ask_handlers(order: Order, address: str, traces: Collection[Trace]) -> list[Asked]:
    """Every account's handler that can, whatever the spool still knows: retention may have erased its part long ago."""
    asked = []
    for name in sorted({*order.found.known_accounts, *(trace.account for trace in traces if trace.account)}):
        mine = [trace for trace in traces if trace.account == name and trace.applicant_id is not None]
        person = Person(
            account=name,
            email=address,
            applicant_ids=tuple(sorted({trace.applicant_id for trace in mine if trace.applicant_id is not None})),
            remote_ids=tuple(sorted({trace.remote_id for trace in mine if trace.remote_id})),
        )
        if (answer := await _ask_handler(order, person, concerned=any(trace.attempted for trace in mine))) is not None:
            asked.append(answer)
    return asked


async def _ask_handler(order: Order, person: Person, *, concerned: bool) -> Asked | None:
    """None where there is nothing to say: it cannot forget, and never got anything of the person that we know of."""
    account = order.found.known_accounts.get(person.account)
    if account is None:
        return Asked(person.account, "(not in the settings)", None, person.remote_ids)
    handler = handoff.build(account.handler, account.handler_settings)
    try:
        if not can_forget(handler):
            return Asked(person.account, account.handler, None, person.remote_ids) if concerned else None
        erased = await ask_to_forget(handler, person, account.handler_timeout)
        return Asked(person.account, account.handler, erased, ())
    except IngestError as error:
        raise IngestError(
            f"the handler {account.handler} of account {person.account} could not forget: {error};"
            " what waited is discarded, the spool has erased nothing: put that right and give the command again"
        ) from None
    finally:
        await asyncio.shield(handoff.close(handler))


async def _erase(order: Order, request: Request, traces: Collection[Trace]) -> Forgotten:
    """Erases it in the spool as soon as no report of theirs is on its way, which the discarding itself may have sent."""
    ids = [trace.application_id for trace in traces]
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return await order.spool.forget(request.address, ids, actor=actor(), note=request.note, now=time.time())
        except NotAllowed as error:
            if not isinstance(error, BeingWorkedOn) or time.monotonic() >= until:
                raise NotAllowed(
                    f"{error}; what waited is discarded and handlers have erased what they can, but the spool nothing yet"
                ) from None
        await asyncio.sleep(LOOK_EVERY)


# --- telling ---------------------------------------------------------------------------------------------------------


def _tell(
    request: Request, traces: Collection[Trace], discarded: list[int], asked: list[Asked], left: Forgotten
) -> None:
    ids = [trace.application_id for trace in traces]
    mails = len({trace.message_id for trace in traces if not trace.erased})
    if request.as_json:
        done: dict[str, Any] = {"applications": ids, "mails": mails, "discarded": discarded, "handlers": asked}
        print_json({**done, "digest": left.digest})
        return
    say(f"forgotten: {_count(len(ids))} ({_ids(ids)}), {mails} mail{'' if mails == 1 else 's'} erased")
    if discarded:
        say(f"discarded, as they still waited: {_ids(discarded)}")
    for each in asked:
        say(_answer(each))
    say(f"kept as the proof: digest {left.digest}")


def _answer(each: Asked) -> str:
    if each.erased is not None:
        records = f"{each.erased} record{'' if each.erased == 1 else 's'}"
        return f"account {each.account}: its handler {each.handler} erased {records}"
    where = f" (remote ids: {', '.join(each.remote_ids)})" if each.remote_ids else ""
    return f"account {each.account}: its handler {each.handler} cannot forget; erase the person in the ATS{where}"


def _ids(ids: Collection[int]) -> str:
    return ", ".join(map(str, ids)) or "none"


def _count(count: int) -> str:
    return f"{count} application{'' if count == 1 else 's'}"


COMMANDS = (forget,)
"""Commands."""
