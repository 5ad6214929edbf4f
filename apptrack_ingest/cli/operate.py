"""`retry`, `discard`, `hold`, `release` and `route`: what a person decides about applications."""

import time
from functools import partial
from typing import Any

import click

from apptrack_ingest.cli.common import actor
from apptrack_ingest.cli.many import Wish, for_many
from apptrack_ingest.cli.orders import Order, believed, known_account, reason_option
from apptrack_ingest.cli.selecting import ID, filter_of, says_something
from apptrack_ingest.errors import NotAllowed
from apptrack_ingest.lifecycle import Event, after, states_a_person_can
from apptrack_ingest.model import HeldReason, ReportState, State
from apptrack_ingest.parse.headers import header_block, peek
from apptrack_ingest.parse.limits import DEFAULT_LIMITS
from apptrack_ingest.spool.contract import ReportRecord, Story

SETTLED_BADLY = (ReportState.REFUSED, ReportState.FAILED)
RETRIED = (State.HELD, State.REJECTED, State.FAILED)

# --- retry -----------------------------------------------------------------------------------------------------------


@click.command(short_help="Try a hand-off or a report again.")
@click.option("--again", is_flag=True, help="Hand a delivered application over once more; the handler is told.")
@click.option("--report", "report_only", is_flag=True, help="Only send the refused or failed report once more.")
@reason_option
@for_many()
def retry(again: bool, report_only: bool, reason: str, **given: Any) -> None:
    """Try again: the hand-off of held, rejected and failed applications, of all others a refused or failed report.

    The new outcome of a hand-off is reported to idibu anew, also where an earlier report was refused. A selection takes
    held, rejected and failed applications; with --again delivered ones; with --report any with such a report.
    """
    if again and report_only:
        raise click.UsageError("--again and --report exclude each other")
    if report_only:
        wish = Wish("retry --report", given, _retry_report, report_states=frozenset(SETTLED_BADLY))
    elif again:
        wish = Wish("retry --again", given, _again, frozenset({State.DELIVERED}))
    else:
        wish = Wish("retry", given, _retry, frozenset(RETRIED))
    wish.carry_out(reason)


async def _retry(order: Order, application_id: int) -> str:
    story = await order.spool.story(application_id)
    if story.summary.state not in RETRIED:
        if _newest_report(story) is None:
            after(story.summary.state, Event.RETRY)
        return await _retry_report(order, application_id)
    _must_not_come_back(order, story)
    await order.act(story, Event.RETRY)
    return "the hand-off is tried again"


async def _again(order: Order, application_id: int) -> str:
    await order.act(await order.spool.story(application_id), Event.AGAIN)
    return "is handed over again"


async def _retry_report(order: Order, application_id: int) -> str:
    story = await order.spool.story(application_id)
    newest = _newest_report(story)
    if newest is None:
        raise NotAllowed("its newest report is neither refused nor failed; there is no report to send again")
    await order.spool.retry_report(newest.report_id, actor=actor(), note=order.note, now=time.time())
    return "its report to idibu is sent again"


def _newest_report(story: Story) -> ReportRecord | None:
    """The newest report, if it ended badly."""
    newest = story.reports[-1] if story.reports else None
    return newest if newest is not None and newest.state in SETTLED_BADLY else None


def _must_not_come_back(order: Order, story: Story) -> None:
    """Refuses what would only be held again for the same reason."""
    summary = story.summary
    if not believed(story):
        raise NotAllowed(
            f"it would be held again as untrusted; `release {summary.application_id}` if you know where it comes from"
        )
    _must_have_an_account(order, story)
    if summary.reason in (HeldReason.NO_APPLICANT_ID, HeldReason.INVALID_APPLICANT_ID):
        raise NotAllowed(f"it would be held again for the same reason; {_tell_the_id(story)}")


def _must_have_an_account(order: Order, story: Story) -> None:
    account, application_id = story.summary.account, story.summary.application_id
    if account is None:
        raise NotAllowed(f"no account matched its mail; `route {application_id} --account NAME` says whose it is")
    if account not in order.found.known_accounts:
        raise NotAllowed(
            f"its account {account} is not in the settings; add it there, or `route {application_id} --account NAME`"
        )


# --- setting aside ------------------------------------------------------------------------------------------------------


@click.command(short_help="Drop applications for good, with a reason.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the history and told to idibu.")
@click.option("--report", "report_only", is_flag=True, help="Only give up the refused or failed report to idibu.")
@for_many()
def discard(reason: str, report_only: bool, **given: Any) -> None:
    """Drop held, rejected and failed applications for good; idibu is told the reason.

    With --report only a refused or failed report is given up, where idibu has deleted the applicant, say.
    """
    if not reason.strip():
        raise click.UsageError("--reason must say why")
    if report_only:
        Wish("discard --report", given, _discard_report, report_states=frozenset(SETTLED_BADLY)).carry_out(reason)
    else:
        Wish("discard", given, _discard, frozenset(states_a_person_can(Event.DISCARD))).carry_out(reason)


async def _discard_report(order: Order, application_id: int) -> str:
    story = await order.spool.story(application_id)
    newest = _newest_report(story)
    if newest is None:
        raise NotAllowed("its newest report is neither refused nor failed; there is no report to give up")
    await order.spool.drop_report(newest.report_id, actor=actor(), note=order.note, now=time.time())
    return "its report is given up, idibu is not told"


async def _discard(order: Order, application_id: int) -> str:
    story = await order.spool.story(application_id)
    report = order.report(story, State.DISCARDED, story.summary.reason)
    await order.act(story, Event.DISCARD, report=report)
    return "discarded, " + ("idibu is told" if report else "idibu is not told")


@click.command(short_help="Stop applications until a release.")
@reason_option
@for_many()
def hold(reason: str, **given: Any) -> None:
    """Stop applications that are still to be handed off, until a `release`."""
    Wish("hold", given, _hold, frozenset({State.RECEIVED})).carry_out(reason)


async def _hold(order: Order, application_id: int) -> str:
    story = await order.spool.story(application_id)
    report = order.report(story, State.HELD, HeldReason.BY_OPERATOR)
    await order.act(story, Event.HOLD, report=report)
    return "held until it is released"


# --- letting go -------------------------------------------------------------------------------------------------------


@click.command(short_help="Let held applications go on.")
@reason_option
@for_many()
def release(reason: str, **given: Any) -> None:
    """Let held applications go on; of an untrusted one, believe the applicant id in the mail from now on."""
    Wish("release", given, _release, frozenset({State.HELD})).carry_out(reason)


async def _release(order: Order, application_id: int) -> str:
    story = await order.spool.story(application_id)
    after(story.summary.state, Event.RELEASE)
    _must_have_an_account(order, story)
    found = await _id_to_believe(order, story)
    await order.act(story, Event.RELEASE, applicant_id=found)
    return f"released{_as_applicant(found)}"


@click.command(short_help="Say whose a held application is.")
@click.option(
    "--account", "target", required=True, metavar="NAME", help="The account it belongs to, as in the settings."
)
@click.option("--applicant-id", type=ID, metavar="N", help="Whose application it is; otherwise the mail's X-iTrackID.")
@click.option(
    "--from-account", default="", metavar="NAME", help="Select those of this account; otherwise those of none."
)
@reason_option
@for_many(without=("account", "applicant_id"))
def route(target: str, applicant_id: int | None, from_account: str, reason: str, **given: Any) -> None:
    """Say whose held applications are: their account, and where the mail does not tell, the applicant id.

    Both are believed from now on, whoever sent the mail. --applicant-id goes with a single ID.
    """
    if applicant_id is not None and len(set(given["ids"])) != 1:
        raise click.UsageError("--applicant-id belongs to one application; give one ID")
    if not given["ids"] and says_something(filter_of(given)):
        given["account"] = from_account
    Wish("route", given, partial(_route, target, applicant_id), frozenset({State.HELD})).carry_out(reason)


async def _route(account: str, applicant_id: int | None, order: Order, application_id: int) -> str:
    name = known_account(order.found, account)
    story = await order.spool.story(application_id)
    after(story.summary.state, Event.ROUTE)
    found = applicant_id if applicant_id is not None else await _id_to_believe(order, story)
    await order.act(story, Event.ROUTE, account=name, applicant_id=found)
    return f"routed to {name}{_as_applicant(found)}"


async def _id_to_believe(order: Order, story: Story) -> int | None:
    """The mail's applicant id, where none is known yet; NotAllowed where the mail has none that can be used."""
    if story.summary.applicant_id is not None:
        return None
    block = header_block(await order.raw(story), DEFAULT_LIMITS.header_block)
    if block is None:
        raise NotAllowed(f"the mail's header is too long to be read; {_tell_the_id(story)}")
    seen = peek(block)
    if seen.applicant_id is None:
        missing = seen.id_problem is HeldReason.NO_APPLICANT_ID
        what = "has no X-iTrackID" if missing else "has an X-iTrackID that is doubled or is no number"
        raise NotAllowed(f"the mail {what}; {_tell_the_id(story)}")
    return seen.applicant_id


def _tell_the_id(story: Story) -> str:
    return f"find the id at idibu, then `route {story.summary.application_id} --account NAME --applicant-id N`"


def _as_applicant(applicant_id: int | None) -> str:
    return "" if applicant_id is None else f" as applicant {applicant_id}"


COMMANDS = (retry, discard, hold, release, route)
"""Commands."""
