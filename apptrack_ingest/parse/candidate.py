"""Who applied: the candidate's name and address from From, or from Reply-To where From is a system's address."""

import re
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from apptrack_ingest.model import Candidate, Hint
from apptrack_ingest.parse.addresses import Mailbox, agreed, is_address, read_mailboxes
from apptrack_ingest.parse.headers import Fields, values_of
from apptrack_ingest.parse.text import Text, decode_bytes, header_charset, unfold

# AppTrack's word where it knows no name (idibu's documentation of the forwarded mail).
PLACEHOLDER_NAMES = frozenset({"no_name", "no_name no_name"})
# Local parts no person reads, compared without "-", "_" and "." and as prefixes ("no-reply+17@..."): senders that refuse
# answers, and mail servers (RFC 2142, RFC 5321 section 4.5.1).
SYSTEM_LOCAL_PARTS = ("noreply", "donotreply", "mailerdaemon", "postmaster")
# Senders of bounces, often with a return path encoded behind; a whole word, for there are people who work as bouncers.
_BOUNCES = re.compile(r"bounces?([^a-z]|$)")
_SEPARATORS = str.maketrans("", "", "-_.")
# idibu's own domains: its routing addresses (apply-1-2@at.idibu.com, Name.xxx@idibu.aptrack.co.uk) are not candidates.
SYSTEM_DOMAINS = ("idibu.com", "aptrack.co.uk")
_SYSTEM_ENDINGS = tuple("." + domain for domain in SYSTEM_DOMAINS)
# Mailboxes of one header that are looked at: a list of senders has two or three.
_MOST_MAILBOXES = 10
_MOST_HEADERS = 5


class _Read(NamedTuple):
    """What one header says: its mailboxes that can be used, warnings in words, and the first mailbox that is no system's."""

    header: str
    mailboxes: tuple[Mailbox, ...] = ()
    warnings: tuple[str, ...] = ()
    person: Mailbox | None = None


def _person_of(mailboxes: Iterable[Mailbox]) -> Mailbox | None:
    """The first that is no system's."""
    return next((mailbox for mailbox in mailboxes if not is_system_address(mailbox.address)), None)


def find_candidate(fields: Fields) -> tuple[Candidate, tuple[str, ...]]:
    """The candidate and warnings in words. Where only a system's address is known the candidate has none: a name shown
    beside it is kept as a hint, since it may be the candidate's or the job board's."""
    sender = _read(fields, "From")
    if sender.person is not None:
        return _candidate(sender.person, sender), sender.warnings
    hints = _name_hints(sender)
    reply_to = _read(fields, "Reply-To")
    warnings = (*sender.warnings, *reply_to.warnings)
    if reply_to.person is not None:
        return _candidate(reply_to.person, reply_to, hints), warnings
    return Candidate(hints=hints), (*warnings, "the mail names no address of the candidate (From, Reply-To)")


def sender_address(fields: Fields) -> str:
    """The first address of From as it is written, a person's or not, usable or not; empty when there is none."""
    values = values_of(fields, b"from")
    found = read_mailboxes(_text(values[0], fields).value) if values else iter(())
    return next((mailbox.address for mailbox in found), "")


def is_system_address(address: str) -> bool:
    """Whether an address belongs to a system (job board, mail server, idibu) and not to a person."""
    local, _, domain = address.lower().rpartition("@")
    plain = local.translate(_SEPARATORS)
    return (
        ("." + domain).endswith(_SYSTEM_ENDINGS) or plain.startswith(SYSTEM_LOCAL_PARTS) or bool(_BOUNCES.match(local))
    )


def _candidate(person: Mailbox, read: _Read, hints: tuple[Hint, ...] = ()) -> Candidate:
    return Candidate(_person(person), person.address, read.header, hints)


def _name_hints(read: _Read) -> tuple[Hint, ...]:
    names = (_person(mailbox) for mailbox in read.mailboxes[:1])
    return tuple(Hint("name", name, read.header) for name in names if name)


def _read(fields: Fields, header: str) -> _Read:
    """The usable mailboxes of the first such header that names a person; several headers are worth a warning."""
    values = list(dict.fromkeys(map(unfold, values_of(fields, header.lower().encode()))))[:_MOST_HEADERS]
    each = [_read_one(_text(value, fields), header) for value in values]
    if len(each) == 1:
        return each[0]
    chosen = next((read for read in each if read.person is not None), each[0] if each else _Read(header))
    several = (f"{header} is there more than once; the first that names a person was read",) if len(each) > 1 else ()
    return chosen._replace(warnings=(*several, *chosen.warnings))


def _read_one(text: Text, header: str) -> _Read:
    found = list(islice(read_mailboxes(text.value), _MOST_MAILBOXES))
    usable = tuple(mailbox for mailbox in found if _usable(mailbox, text))
    problems = {
        "holds bytes of no certain charset; they were read as well as possible": not text.certain
        or not all(mailbox.certain for mailbox in usable),
        "holds no address that can be used": not usable,
        "is not written by the rules; its names and addresses were read as well as possible": bool(usable)
        and not agreed(text.value, found[0].address),
        "names more than one address; the first that is a person's was taken": len(usable) > 1,
    }
    warnings = tuple([f"{header} {problem}" for problem, there in problems.items() if there])
    return _Read(header, usable, warnings, _person_of(usable))


def _text(value: bytes, fields: Fields) -> Text:
    line = unfold(value)
    return decode_bytes(line, None, None if line.isascii() else header_charset(fields))


def _usable(mailbox: Mailbox, text: Text) -> bool:
    """An address that can be written to; letters that were guessed from bytes would make it somebody else's."""
    return is_address(mailbox.address) and (text.certain or mailbox.address.isascii())


def _person(mailbox: Mailbox) -> str | None:
    """A name fit to be shown; None for AppTrack's placeholder and for an address in the name's place."""
    shown = (mailbox.name or "").strip(" '\"")
    if shown.lower() in PLACEHOLDER_NAMES or shown.lower() == mailbox.address.lower():
        return None
    local, at, domain = shown.partition("@")
    looks_like_address = bool(local and at and "." in domain) and " " not in shown
    return None if looks_like_address or not shown else shown
