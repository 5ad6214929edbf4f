"""What the commands of people on applications share: one order, carried out for each."""

import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from apptrack_ingest.cli.common import (
    actor,
    code_of,
    config_option,
    err,
    errors_as_exit_codes,
    json_option,
    run,
    spool_of,
)
from apptrack_ingest.cli.selecting import ID
from apptrack_ingest.cli.showing import print_json, safe, say
from apptrack_ingest.errors import IngestError, NotFound
from apptrack_ingest.lifecycle import Event, report_of
from apptrack_ingest.model import HeldReason, Report, State
from apptrack_ingest.parse.pool import ParserPool
from apptrack_ingest.service import working
from apptrack_ingest.settings import Settings
from apptrack_ingest.spool.contract import Action, Spool, Story

VOUCHES = (Event.ROUTE, Event.RELEASE)
"""With these a person vouches for the applicant id, whoever sent the mail."""


@dataclass(frozen=True, slots=True)
class Order:
    """A person's command while it is carried out; `note` is the reason given, `parser` starts at its first mail; `number`
    is the order's in the history, where it is about all that a filter selects."""

    spool: Spool
    found: Settings
    parser: ParserPool
    note: str
    number: int | None = None

    async def act(
        self,
        story: Story,
        event: Event,
        *,
        account: str | None = None,
        applicant_id: int | None = None,
        report: Report | None = None,
    ) -> State:
        """Carries out one decision; the history names who gave the command."""
        action = Action(event, actor(), self.note, account, applicant_id, report, self.number)
        return await self.spool.act(story.summary.application_id, action, now=time.time())

    async def raw(self, story: Story) -> bytes:
        """The mail's exact bytes; NotFound once retention has erased them."""
        if story.erased:
            raise NotFound("its mail was erased by retention or `forget`")
        return await self.spool.raw(story.summary.message_id)

    def report(self, story: Story, state: State, reason: HeldReason | None) -> Report | None:
        """What idibu is to be told of a person's decision, if this account is reported at all."""
        account = self.found.known_accounts.get(story.summary.account or "")
        if account is None or not account.reporting:
            return None
        return report_of(
            state,
            applicant_id=story.summary.applicant_id,
            believed=believed(story),
            now=time.time(),
            reason=reason,
            words=self.note,
        )


def believed(story: Story) -> bool:
    """Whether the applicant id counts: a rule of trust matched, or a person has vouched for it."""
    return story.trusted or vouched(story)


def vouched(story: Story) -> bool:
    """Whether a person has routed or released it."""
    return any(action.action in VOUCHES for action in story.actions)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an order for one application; `exit_code` 0: it was done."""

    application_id: int
    exit_code: int
    text: str


Work = Callable[[Order, int], Awaitable[str]]
"""Carries an order out for one application and says what was done."""

Command = Callable[..., None]

reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; kept in the application's history.")


def for_each_id(command: Command) -> Command:
    """What a command on applications by their ids takes: ids, --config and --json."""
    ids = click.argument("ids", metavar="ID...", nargs=-1, required=True, type=ID)
    return ids(config_option(json_option(errors_as_exit_codes(command))))


def carry_out(config: Path | None, ids: Sequence[int], as_json: bool, note: str, work: Work) -> None:
    """Does `work` for each id, prints a line (or an object) for each, and exits with the worst code."""
    results = run(_results(config, ids, note, work))
    if as_json:
        print_json(results)
    else:
        for result in results:
            tell(result)
    sys.exit(max(result.exit_code for result in results))


@contextlib.asynccontextmanager
async def order_of(config: Path | None, note: str) -> AsyncIterator[Order]:
    """An order with the spool it is carried out on, opened and closed."""
    async with spool_of(config) as (spool, found):
        order = Order(spool, found, working.parser_of(found), note)
        try:
            yield order
        finally:
            await order.parser.close()


async def _results(config: Path | None, ids: Sequence[int], note: str, work: Work) -> list[Result]:
    async with order_of(config, note) as order:
        return [await result_of(order, application_id, work) for application_id in dict.fromkeys(ids)]


async def result_of(order: Order, application_id: int, work: Work) -> Result:
    """What came of it; an error of ours is told, not raised."""
    try:
        return Result(application_id, 0, await work(order, application_id))
    except IngestError as error:
        return Result(application_id, code_of(error), str(error))


def tell(result: Result) -> None:
    """The result as a line: to standard output what was done, to standard error what was not."""
    if result.exit_code == 0:
        say(f"{result.application_id}: {result.text}")
    else:
        err.print(f"{result.application_id}: error: {safe(result.text)}", markup=False)


def known_account(found: Settings, name: str) -> str:
    """The name, if the settings have such an account; NotFound says which there are."""
    if name not in found.known_accounts:
        raise NotFound(
            f"there is no account {name} in the settings; there are: {', '.join(sorted(found.known_accounts))}"
        )
    return name
