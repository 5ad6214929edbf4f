"""`send`: saved mails or sample applications by real SMTP, as idibu or a mail server of the customer's would."""

import json
import os
import re
import smtplib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from email.utils import parseaddr
from functools import partial
from pathlib import Path

import click
from rich.progress import Progress

from apptrack_ingest import settings
from apptrack_ingest.cli.common import FAILED, config_option, err, errors_as_exit_codes, json_option
from apptrack_ingest.cli.samples import samples
from apptrack_ingest.cli.showing import print_json, safe, say
from apptrack_ingest.errors import IngestError
from apptrack_ingest.parse.headers import header_block
from apptrack_ingest.parse.limits import DEFAULT_LIMITS
from apptrack_ingest.service.supervisor import STATUS
from apptrack_ingest.settings import Settings

PATIENCE = 60.0
"""Seconds to wait for each answer of the server."""

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to reach what listens everywhere
UNKNOWN_SENDER = "apptrack-ingest@localhost"

Mail = tuple[str, Callable[[], bytes]]
"""A mail's name for people, and how to get its bytes."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the server answered to one mail; `code` 0: it answered nothing."""

    name: str
    code: int
    reply: str

    @property
    def ok(self) -> bool:
        """Whether the server took the mail."""
        return 200 <= self.code < 300


def _address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value and not re.fullmatch(r"[^\s<>]+", value):
        raise click.BadParameter("write an address alone, like applications@acme.example")
    return value


@click.command(short_help="Send mails or samples by SMTP.")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--sample", type=click.IntRange(1, 100_000), metavar="N", help="Send N varied sample applications instead."
)
@click.option(
    "--to",
    metavar="ADDRESS",
    default="applications@localhost",
    show_default=True,
    callback=_address,
    help="The envelope recipient.",
)
@click.option(
    "--from",
    "sender",
    metavar="ADDRESS",
    callback=_address,
    help="The envelope sender; otherwise each mail's From address. An empty one makes it a bounce.",
)
@click.option("--host", help="The server; otherwise the running `serve` of this configuration.")
@click.option("--port", type=click.IntRange(1, 65535), help="Its port.")
@config_option
@json_option
@errors_as_exit_codes
def send(
    files: tuple[Path, ...],
    sample: int | None,
    to: str,
    sender: str | None,
    host: str | None,
    port: int | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Send saved mails (.eml), or sample applications, by SMTP; exit code 1 if any was not taken.

    Lines that end with LF are sent with CRLF, as SMTP demands; nothing else of a file is changed.
    """
    if bool(files) == (sample is not None):
        raise click.UsageError("give either files, or --sample N")
    address = _destination(settings.load(config), host, port)
    mails = _files(files) if sample is None else _samples(sample)
    results = _send_all(Courier(*address), mails, sample or len(files), sender, to)
    _tell(results, f"{address[0]}:{address[1]}", as_json)
    if not all(result.ok for result in results):
        raise SystemExit(FAILED)


def _files(files: Sequence[Path]) -> Iterator[Mail]:
    for path in files:
        yield str(path), path.read_bytes


def _samples(count: int) -> Iterator[Mail]:
    # Ids of their own each second: samples sent a second time are new applications, not copies of the first.
    for name, mail in samples(count, int(time.time())):
        yield name, partial(bytes, mail)


# --- where to --------------------------------------------------------------------------------------------------------


def _destination(found: Settings, host: str | None, port: int | None) -> tuple[str, int]:
    """What was asked for, else where the running `serve` listens, else what the settings say."""
    listening = running(found.data_dir) or (found.smtp.host, found.smtp.port)
    chosen = port if port is not None else listening[1]
    if chosen == 0:
        raise IngestError(
            "smtp.port is 0, so `serve` chooses a port when it starts, and it is not running; give --port"
        )
    return host if host is not None else ANYWHERE.get(listening[0], listening[0]), chosen


def running(data_dir: Path) -> tuple[str, int] | None:
    """Where the running `serve` of this data directory takes mail; None where none runs."""
    try:
        status = json.loads((data_dir / STATUS).read_text(encoding="utf-8"))
        host, port = status["smtp"][0]
        return (str(host), int(port)) if _is_alive(int(status["pid"])) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # it is another user's
    except OSError:
        return False
    return True


# --- the mails -------------------------------------------------------------------------------------------------------


def with_crlf(raw: bytes) -> bytes:
    """The mail with CRLF where a line ended with LF alone (RFC 5321, 2.3.8)."""
    return re.sub(rb"(?<!\r)\n", b"\r\n", raw)


def sender_of(raw: bytes) -> str:
    """The address in the mail's From, where it can be an envelope sender that any server takes; else one of ours."""
    block = header_block(raw, DEFAULT_LIMITS.header_block) or b""
    address = parseaddr(str(BytesHeaderParser().parsebytes(block).get("From", "")))[1]
    usable = re.fullmatch(r"[!-;=?-~]{1,64}@[!-;=?-~]{1,255}", address)
    return address if usable else UNKNOWN_SENDER


# --- sending ---------------------------------------------------------------------------------------------------------


class Unreachable(IngestError):
    """No connection to the server can be made."""


class Courier:
    """Sends mails over one connection, made when needed and made again after it broke."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._session: smtplib.SMTP | None = None

    def send(self, raw: bytes, sender: str, recipient: str) -> tuple[int, str]:
        """The answer that decided about the mail: code (0: none came) and text. Raises Unreachable."""
        session = self._session = self._session or self._connect()
        try:
            code, text = _transaction(session, raw, sender, recipient)
        except smtplib.SMTPResponseException as error:
            code, text = error.smtp_code, _words(error.smtp_error)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            code, text = 0, str(getattr(error, "strerror", None) or error)
        if code != 250:
            self.close()  # a refused mail leaves a transaction half done; the next one begins anew
        return code, text

    def close(self) -> None:
        """Says goodbye, where there is still somebody."""
        session, self._session = self._session, None
        if session is not None:
            try:
                session.quit()
            except (smtplib.SMTPException, OSError):
                session.close()

    def _connect(self) -> smtplib.SMTP:
        host, port = self._address
        try:
            # With a name of our own smtplib asks no DNS server for one.
            session = smtplib.SMTP(host, port, local_hostname=socket.gethostname() or "localhost", timeout=PATIENCE)
            session.ehlo_or_helo_if_needed()
        except smtplib.SMTPResponseException as error:
            raise Unreachable(f"{host}:{port} says {error.smtp_code} {safe(_words(error.smtp_error))}") from None
        except (smtplib.SMTPException, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise Unreachable(f"no connection to {host}:{port}: {why}; is `apptrack-ingest serve` running?") from None
        return session


def _transaction(session: smtplib.SMTP, raw: bytes, sender: str, recipient: str) -> tuple[int, str]:
    options = [f"SIZE={len(raw)}"] if session.has_extn("size") else []
    if session.has_extn("8bitmime") and not raw.isascii():
        options.append("BODY=8BITMIME")
    if not (sender + recipient).isascii():
        options.append("SMTPUTF8")
    code, text = session.mail(sender, options)
    if code == 250:
        code, text = session.rcpt(recipient)
    if code in (250, 251):
        code, text = session.data(raw)
    return code, _words(text)


def _words(reply: bytes | str) -> str:
    text = reply if isinstance(reply, str) else reply.decode("utf-8", "backslashreplace")
    return " ".join(text.split())


def _send_all(courier: Courier, mails: Iterator[Mail], total: int, sender: str | None, to: str) -> list[Sent]:
    """Sends one after the other; a bar on standard error shows people how far it is. Unreachable at the first mail is
    raised, later it is the result of those that are left."""
    results: list[Sent] = []
    with Progress(console=err, disable=not err.is_terminal, transient=True) as progress:
        for name, read in progress.track(mails, total=total, description="sending"):
            try:
                results.append(_send_one(courier, name, read, sender, to))
            except Unreachable as error:
                if not results:
                    raise
                results.append(Sent(name, 0, str(error)))
                results += [Sent(left, 0, "not sent") for left, _ in mails]
    courier.close()
    return results


def _send_one(courier: Courier, name: str, read: Callable[[], bytes], sender: str | None, to: str) -> Sent:
    try:
        raw = with_crlf(read())
    except OSError as error:
        return Sent(name, 0, f"cannot be read: {error.strerror}")
    return Sent(name, *courier.send(raw, sender_of(raw) if sender is None else sender, to))


# --- telling ---------------------------------------------------------------------------------------------------------


def _tell(results: list[Sent], server: str, as_json: bool) -> None:
    taken = sum(result.ok for result in results)
    if as_json:
        mails = [{"name": r.name, "ok": r.ok, "code": r.code, "reply": r.reply} for r in results]
        print_json({"server": server, "sent": taken, "failed": len(results) - taken, "mails": mails})
        return
    say(f"{taken} of {len(results)} mails taken by {server}")
    # The id in each reply ("Queued as 17") is left out, so that equal answers count as one.
    answers = Counter(re.sub(r"\d+$", "...", f"{result.code} {result.reply}") for result in results if result.ok)
    for answer, count in answers.most_common():
        say(f"  {count} x {answer}")
    for result in results:
        if not result.ok:
            err.print(f"  {safe(result.name)}: {result.code or 'failed'} {safe(result.reply)}", markup=False)


COMMANDS = (send,)
"""Commands."""
