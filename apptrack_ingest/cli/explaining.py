"""`explain`: what would become of a saved mail at the intake, and why, without taking it."""

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from apptrack_ingest import settings
from apptrack_ingest.cli.common import FAILED, config_option, errors_as_exit_codes, json_option, run
from apptrack_ingest.cli.making import first_recipient
from apptrack_ingest.cli.sending import with_crlf
from apptrack_ingest.cli.showing import print_json, print_table, text
from apptrack_ingest.errors import IngestError, Unreadable
from apptrack_ingest.lifecycle import reason_to_hold
from apptrack_ingest.model import Arrival, Envelope, Parsed
from apptrack_ingest.parse.headers import Peek, header_block, peek
from apptrack_ingest.parse.mime import parse
from apptrack_ingest.receive import policy
from apptrack_ingest.receive.data import DataReader
from apptrack_ingest.receive.deciding import Decider, Decision, Delivery
from apptrack_ingest.service import intake, working
from apptrack_ingest.settings import Settings
from apptrack_ingest.trust import Certificate, Connection, Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answers to each recipient (address, reply) and to the mail, and what follows for each account."""

    connection: Connection
    recipients: tuple[tuple[str, policy.Reply], ...]
    decision: Decision
    seen: Peek | None
    attached: "Attached | None" = None

    @property
    def reply(self) -> policy.Reply:
        """The answer to the whole mail."""
        if not any(reply is policy.RECIPIENT_OK for _, reply in self.recipients):
            return self.recipients[0][1]
        return self.decision.refusal or policy.QUEUED.filled(id="N")


@dataclass(frozen=True, slots=True)
class Attached:
    """An application found in a mail attached to this one: the worker judges it by its own signature, by account."""

    parsed: Parsed
    verdicts: Mapping[str | None, Verdict]


@click.command("explain", short_help="Say what would become of a saved mail, and why.")
@click.argument("file", metavar="FILE.eml", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--peer", metavar="ADDRESS", help="The IP address it comes from.")
@click.option("--recipient", "recipients", multiple=True, metavar="ADDRESS", help="As in RCPT; repeatable.")
@click.option("--sender", default="", metavar="ADDRESS", help="As in MAIL; by default that of a bounce.")
@click.option("--helo", default="", metavar="NAME", help="The name the peer gives itself.")
@click.option("--user", metavar="NAME", help="A user of smtp.users that has authenticated itself.")
@click.option(
    "--certificate", metavar="SHA256|NAME", help="Of a client certificate that the listener's client_ca vouches for."
)
@config_option
@json_option
@errors_as_exit_codes
def explain(
    file: Path,
    peer: str | None,
    recipients: tuple[str, ...],
    sender: str,
    helo: str,
    user: str | None,
    certificate: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Say for the saved mail FILE.eml which reply it would get, for which account, whether its X-iTrackID would be
    believed and by which rule, and which handler it would go to. Nothing is taken; the DNS is really asked.

    Of a mail that we received (`export`) peer and recipient are those of its topmost Received header, unless given.
    Limits on connections, rates and room are not looked at. Exit code 0: it would be handed to its handler.
    """
    found = settings.load(config)
    raw, ours = without_our_trace(as_sent(file.read_bytes()))
    connection = Connection(_peer(peer or ours.get("peer")), helo, user, _certificate(certificate))
    named = recipients or tuple(filter(None, [ours.get("recipient")])) or (_only_recipient(found),)
    told = run(_explain(found, raw, connection, sender, named))
    (print_json if as_json else _print)(shape(told, found))
    if told.decision.refusal is not None or not all(
        _next(arrival, told, found)[0] for arrival in told.decision.arrivals
    ):
        raise SystemExit(FAILED)


# --- what goes in ----------------------------------------------------------------------------------------------------


def as_sent(content: bytes) -> bytes:
    """The bytes as they come by SMTP: a file with the line ends of this system gets those of a mail, any other stays."""
    return content if b"\r\n" in content else with_crlf(content)


_OUR_TRACE = re.compile(
    rb"Received: from \S+ \(\[(?:IPv6:)?(?P<peer>[^\]\r\n]+)\]\)\r\n by \S+ with \S+ id [0-9a-f]{16}"
    rb"(?:\r\n for <(?P<recipient>[^>\r\n]*)>)?;\r\n [^\r\n]*\r\n"
)


def without_our_trace(raw: bytes) -> tuple[bytes, dict[str, str]]:
    """The mail as its peer sent it, and what our own Received header on top, if there is one, says of peer and recipient."""
    match = _OUR_TRACE.match(raw)
    if match is None:
        return raw, {}
    told = {name: value.decode("utf-8", "replace") for name, value in match.groupdict().items() if value}
    return raw[match.end() :], told


def _peer(peer: str | None) -> str:
    if peer is None:
        raise IngestError("from where? say --peer ADDRESS (this file has no Received header of ours on top)")
    try:
        return str(ip_address(peer.partition("%")[0]))
    except ValueError:
        raise IngestError(f"--peer {peer!r} is no IP address") from None


def _certificate(shown: str | None) -> Certificate | None:
    """A certificate of this fingerprint, or of this name, written as the settings write it."""
    if not shown:
        return None
    plain = shown.lower().removeprefix("sha256:").replace(":", "")
    is_fingerprint = re.fullmatch("[0-9a-f]{64}", plain)
    return Certificate(plain) if is_fingerprint else Certificate("", (shown.lower(),))


def _only_recipient(found: Settings) -> str:
    if len(found.known_accounts) > 1:
        raise IngestError("for whom? say --recipient ADDRESS: there are several accounts")
    if found.any_recipient:
        return "anyone@localhost"
    return first_recipient(found, next(iter(found.known_accounts)))


async def _explain(
    found: Settings, raw: bytes, connection: Connection, sender: str, recipients: tuple[str, ...]
) -> Explanation:
    judge = intake.judge_of(found)
    limits = intake.limits_of(found)
    decider = Decider(intake.directory_of(found), judge, trust=intake.trust_of(found), limits=limits)
    answered = tuple(
        (address, decider.recipient(address, connection.address, n)) for n, address in enumerate(recipients)
    )
    accepted = tuple(address for address, reply in answered if reply is policy.RECIPIENT_OK)
    envelope = Envelope(sender, accepted, connection.address, connection.helo)
    reader = DataReader(limits.message_size)
    reader.feed(raw.replace(b"\r\n.", b"\r\n..") + (b"" if raw.endswith(b"\r\n") else b"\r\n") + b".\r\n")
    delivery = Delivery(envelope, connection, "ESMTP", reader.content, reader.warnings, too_big=reader.too_big)
    try:
        decision = await decider.decide(delivery) if accepted else Decision(answered[0][1])
    finally:
        await asyncio.shield(judge.close())
    block = header_block(raw, limits.header_block)
    seen = peek(block) if block is not None else None
    attached = await _attached(found, raw, [arrival.account for arrival in decision.arrivals])
    return Explanation(connection, answered, decision, seen, attached)


async def _attached(found: Settings, raw: bytes, accounts: Sequence[str | None]) -> Attached | None:
    """What the worker would find attached, and believe, for these accounts; None where there is nothing of the kind."""
    with contextlib.suppress(Unreadable):
        parsed = parse(raw)
        if parsed.inner is not None:
            judge = working.InnerJudge(found)
            try:
                return Attached(parsed, {account: await judge(account, parsed.inner) for account in accounts})
            finally:
                await asyncio.shield(judge.close())
    return None


# --- what comes out --------------------------------------------------------------------------------------------------


def _next(arrival: Arrival, told: Explanation, found: Settings) -> tuple[bool, str]:
    """Whether it would be handed over, and to whom, or why it would be held."""
    account = found.known_accounts.get(arrival.account or "")
    source = told.attached.parsed if told.attached else told.seen
    reason = reason_to_hold(
        trusted=told.attached.verdicts[arrival.account].trusted if told.attached else arrival.trusted,
        vouched=False,
        applicant_id=source.applicant_id if source else None,
        id_problem=source.id_problem if source else None,
        account=arrival.account if account else None,
    )
    if reason is not None or account is None:
        return False, f"held as {reason}"
    return True, f"handed to the handler {account.handler}"


def shape(told: Explanation, found: Settings) -> dict[str, Any]:
    """For programs; `reply` is what the sender gets at the end."""
    decision, seen = told.decision, told.seen
    verdicts = decision.judgement.verdicts if decision.judgement else {}
    return {
        "peer": told.connection.address,
        "reply": told.reply.render(),
        "recipients": [{"recipient": address, "reply": reply.render()} for address, reply in told.recipients],
        "applicant_id": seen.applicant_id if seen else None,
        "client_id": seen.client_id if seen else None,
        "attached": _shape_of(told.attached) if told.attached else None,
        "found_out": list(decision.judgement.evidence) if decision.judgement else [],
        "verdicts": [
            {"account": account, "trusted": verdict.trusted, "rule": verdict.rule, "why": verdict.note}
            for account, verdict in verdicts.items()
        ],
        "applications": [
            {"account": arrival.account, "next": _next(arrival, told, found)[1]} for arrival in decision.arrivals
        ]
        if decision.refusal is None
        else [],
    }


def _shape_of(attached: Attached) -> dict[str, Any]:
    return {
        "applicant_id": attached.parsed.applicant_id,
        "verdicts": [
            {"account": account, "trusted": verdict.trusted, "rule": verdict.rule, "why": verdict.note}
            for account, verdict in attached.verdicts.items()
        ],
    }


def _print(shaped: dict[str, Any]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(shaped):
        table.add_row(name, text(value))
    print_table(table)


def _rows(shaped: dict[str, Any]) -> list[tuple[str, object]]:
    attached = shaped["attached"] or {"verdicts": []}
    return [
        ("from", shaped["peer"]),
        *((f"to {one['recipient']}", one["reply"]) for one in shaped["recipients"]),
        ("applicant id", shaped["applicant_id"]),
        ("client id", shaped["client_id"]),
        *(("found out", line) for line in shaped["found_out"]),
        *((f"trust, {_named(one)}", _told(one)) for one in shaped["verdicts"]),
        ("reply", shaped["reply"]),
        *([("attached", f"an application, applicant id {attached['applicant_id']}")] if shaped["attached"] else []),
        *((f"its signature, {_named(one)}", _told(one)) for one in attached["verdicts"]),
        *((f"then, {_named(one)}", one["next"]) for one in shaped["applications"]),
    ]


def _named(one: dict[str, Any]) -> str:
    return str(one["account"] or "no account")


def _told(verdict: dict[str, Any]) -> str:
    return f"{'yes' if verdict['trusted'] else 'no'} ({verdict['rule']}): {verdict['why']}"


COMMANDS = (explain,)
"""Commands."""
