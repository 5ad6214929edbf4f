"""Who applied: the candidate's name and address from From, or from Reply-To where From is a system's address."""

import logging
import re
from dataclasses import dataclass
from email.errors import MessageError

import mailparser

from apptrack_ingest.model import Candidate, Hint
from apptrack_ingest.parse.headers import Fields, values_of
from apptrack_ingest.parse.text import clean_line, decode_bytes, decode_header, unfold

# AppTrack's word where it knows no name (idibu's documentation of the forwarded mail).
PLACEHOLDER_NAMES = frozenset({"no_name", "no_name no_name"})
# Local parts no person reads, compared without "-", "_" and "." and as prefixes ("no-reply+17@..."): senders that refuse
# answers, and mail servers (RFC 2142, RFC 5321 section 4.5.1).
SYSTEM_LOCAL_PARTS = ("noreply", "donotreply", "mailerdaemon", "postmaster")
# Senders of bounces, often with a return path encoded behind; a whole word, for there are people who work as bouncers.
_BOUNCES = re.compile(r"bounces?([^a-z]|$)")
# idibu's own domains: its routing addresses (apply-1-2@at.idibu.com, Name.xxx@idibu.aptrack.co.uk) are not candidates.
SYSTEM_DOMAINS = ("idibu.com", "aptrack.co.uk")

# Enough for any list of senders; the first is all we want, and a hostile header is to cost little.
_LONGEST_VALUE = 16 * 1024

# mail-parser logs headers it cannot decode as they are: candidates' data, which must not reach any log.
_mailparser_log = logging.getLogger("mailparser")
_mailparser_log.addHandler(logging.NullHandler())
_mailparser_log.propagate = False


@dataclass(frozen=True, slots=True)
class _Mailbox:
    name: str | None
    address: str
    source: str


def find_candidate(fields: Fields) -> tuple[Candidate, tuple[str, ...]]:
    """The candidate and warnings in words. Where only a system's address is known the candidate has none: a name shown
    beside it is kept as a hint, since it may be the candidate's or the job board's."""
    sender, warnings = _first_mailbox(fields, "From")
    if sender is not None and not is_system_address(sender.address):
        return Candidate(sender.name, sender.address, sender.source), warnings
    hints = (Hint("name", sender.name, "From"),) if sender is not None and sender.name else ()
    reply_to, more = _first_mailbox(fields, "Reply-To")
    warnings += more
    if reply_to is not None and not is_system_address(reply_to.address):
        return Candidate(reply_to.name, reply_to.address, reply_to.source, hints), warnings
    return Candidate(hints=hints), (*warnings, "the mail names no address of the candidate (From, Reply-To)")


def is_system_address(address: str) -> bool:
    """Whether an address belongs to a system (job board, mail server, idibu) and not to a person."""
    local, _, domain = address.lower().rpartition("@")
    plain = local.translate(str.maketrans("", "", "-_."))
    ours = any(domain == system or domain.endswith("." + system) for system in SYSTEM_DOMAINS)
    return ours or plain.startswith(SYSTEM_LOCAL_PARTS) or bool(_BOUNCES.match(local))


def _first_mailbox(fields: Fields, header: str) -> tuple[_Mailbox | None, tuple[str, ...]]:
    """The first usable mailbox of the first such header; several headers that differ are worth a warning."""
    values = [unfold(value) for value in values_of(fields, header.lower().encode())]
    if not values:
        return None, ()
    warnings = []
    if len(set(values)) > 1:
        warnings.append(f"{header} is there more than once; the first was read")
    text = decode_bytes(values[0][:_LONGEST_VALUE], None)
    if not text.certain:
        warnings.append(f"{header} holds bytes of no certain charset; they were read as well as possible")
    mailboxes = _read_mailboxes(text.value)
    if not mailboxes:
        return None, (*warnings, f"{header} holds no address that can be used")
    name, address = mailboxes[0]
    mailbox = _Mailbox(_person(_whole_name(text.value, name), address), clean_line(address).value, header)
    return mailbox, tuple(warnings)


def _read_mailboxes(value: str) -> list[tuple[str, str]]:
    """(name, address) pairs as mail-parser reads them, from a mail of that one header, so that nothing else can disturb."""
    line = clean_line(value).value
    try:
        return _mailparser_from(line)
    except MessageError:  # an encoded word it cannot decode: the address is worth having without the name
        return [("", address) for _, address in _mailparser_from(line.replace("=?", " "))]


def _mailparser_from(line: str) -> list[tuple[str, str]]:
    mail = mailparser.parse_from_bytes(b"From: " + line.encode() + b"\r\n\r\n")
    return [(str(name), str(address)) for name, address in mail.from_]


def _whole_name(value: str, name: str) -> str:
    """Undo the cut in `Smith, Jane <jane@example.com>`: unquoted, its comma separates addresses (RFC 5322, section 3.4)."""
    before, found, after = value.partition("<")
    sole = found and "<" not in after and "," in before and "," not in after
    return before if sole and not any(mark in before for mark in '@"(:') else name


def _person(name: str, address: str) -> str | None:
    """A name fit to be shown; None for AppTrack's placeholder and for an address in the name's place."""
    shown = clean_line(decode_header(name.encode("utf-8", "replace")).value).value.strip(" '\"")
    if shown.lower() in PLACEHOLDER_NAMES or shown.lower() == address.lower():
        return None
    local, at, domain = shown.partition("@")
    is_address = bool(local and at and "." in domain) and " " not in shown
    return None if is_address or not shown else shown
