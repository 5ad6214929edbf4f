"""What a mail's subject and body may tell of the candidate: offered with where it was found, never passed off as fact."""

import re
from collections.abc import Iterator, Sequence
from html import unescape
from itertools import repeat
from typing import NamedTuple

from apptrack_ingest.model import Candidate, Hint
from apptrack_ingest.parse.addresses import is_address, read_mailboxes
from apptrack_ingest.parse.candidate import PLACEHOLDER_NAMES, is_system_address, sender_address
from apptrack_ingest.parse.headers import Fields, values_of
from apptrack_ingest.parse.labels import labelled
from apptrack_ingest.parse.text import decode_header

# A candidate's details stand at the top of a job board's mail or in a signature; and a body may be hostile.
_LONGEST_TEXT = 32 * 1024
_LONGEST_HTML = 256 * 1024
_LONGEST_LINE = 1000
_MOST_HINTS = 20
_LONGEST_VALUE = 200

_EMAIL = re.compile(r"(?<![\w.+'@-])[\w.+'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
# What stands before it is looked at after its first character: a regular expression is fast in finding one of a few.
_PHONE = re.compile(r"[+(\d](?<![\w@/.,:=+-].)(?:(?<=\d)|(?<=[+(])\d)[\d \u00a0()./\u2010-\u2013-]{5,24}\d(?![\w@])")
# What makes a number without a label look like one to call: with a country code or trunk zero, or as written in America.
_DIALLED = re.compile(r"\+|00[1-9]|\(?0[1-9]|\(?[2-9]\d\d\)?[ .-]{1,2}\d{3}[ .-]\d{4}$")
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b|\d{4}[./-]\d{1,2}[./-]\d{1,2}\b")
# ITU-T E.164: fifteen digits with the country code.
_MOST_DIGITS = 15
_NAME = r"[^\W\d_][\w.'’-]{0,40}(?: [^\W\d_][\w.'’-]{0,40}){1,4}?"
_SUBJECTS = (
    re.compile(
        r"\b(?:application|cv|résumé|resume|bewerbung|candidature|candidatura|sollicitatie)"
        rf" (?:received )?(?:from|by|von|de|van):? ({_NAME})(?= (?:for|as|to|um|als|auf|pour|para|voor)\b|\s*[-–|,(:]|$)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"^(?:new applicant: )?({_NAME}) (?:has applied|applied|hat sich|a postulé|solliciteert)\b", re.IGNORECASE
    ),
)
_LINK = re.compile(r"[hH](?i:ref\s{0,5}=\s{0,5}[\"']?\s{0,5}(mailto|tel):([^\"'?<>\s]{3,200}))")
# Most tags are passed over by their first letter; ASCII alone, for no browser takes "ſcript" for a script.
_SILENT = re.compile(r"<(?=[!shtSHT])(?:!--|((?ai:script|style|head|title))\b)")
_CLOSINGS = {
    name: re.compile(rf"</{name}\b[^<>]{{0,100}}>", re.IGNORECASE) for name in ("script", "style", "head", "title")
} | {"": re.compile("-->")}
_TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]{0,20})[^<>]{0,4000}>")
# What a tag is as text; where it is not named here, the end of a line.
_SPACE = dict.fromkeys(("td", "th", "dd"), "\t") | dict.fromkeys(
    ("a", "abbr", "b", "em", "font", "i", "small", "span", "strong", "sub", "sup", "u", "wbr"), ""
)


class _Known(NamedTuple):
    """Addresses that are no news: of those the mail was sent to or by."""

    addresses: frozenset[str]
    domain: str


def with_hints(
    candidate: Candidate, fields: Fields, subject: str | None, text: str | None, html: str | None
) -> Candidate:
    """The candidate with phone numbers, addresses and names that the subject and body may tell.

    Kinds are name, email, phone and address (postal); `source` is Subject, "text, line 3", "html" or "html, a link", with
    the label that stood before it in parentheses. Addresses of recipients and of systems are no hints.
    """
    known: _Known | None = None
    seen = {_key(hint) for hint in candidate.hints}
    hints = list(candidate.hints)
    for hint in _found(subject, text, html):
        key = _key(hint)
        if key in seen or _is_the_candidates(hint, candidate):
            continue
        if hint.kind == "email":
            known = known or _known(fields)
            if not _is_news(hint, known):
                continue
        seen.add(key)
        hints.append(hint)
        if len(hints) >= _MOST_HINTS:
            break
    return Candidate(candidate.name, candidate.email, candidate.source, tuple(hints))


def _found(subject: str | None, text: str | None, html: str | None) -> Iterator[Hint]:
    yield from _in_subject((subject or "")[:_LONGEST_LINE])
    if text:
        yield from _in_lines(text[:_LONGEST_TEXT].split("\n"), "text, line {}")
    if html:
        yield from _in_lines(lines_of(html), "html")
        yield from _in_links(html[:_LONGEST_HTML])


def _in_subject(subject: str) -> Iterator[Hint]:
    for pattern in _SUBJECTS:
        if found := pattern.search(subject):
            yield Hint("name", found[1].strip(), "Subject")


def _in_lines(lines: Sequence[str], place: str) -> Iterator[Hint]:
    """First what has a label, for that is the likelier truth and tells what kind of number it is. `place` names the lines,
    with braces for a line's number."""
    names: dict[str, Hint] = {}
    for index, line in enumerate(lines):
        found = labelled(line[:_LONGEST_LINE]) if ":" in line or "=" in line or "\t" in line else None
        if found is None:
            continue
        kind, label, value = found
        value = value or _next_line(lines, index)
        source = f"{place.format(index + 1)} ({label})"
        if kind in ("first name", "last name"):
            names.setdefault(kind, Hint("name", value, source))
        else:
            yield from _labelled(kind, value, source)
    if len(names) == 2 and all(_is_name(hint.value) for hint in names.values()):
        yield Hint("name", f"{names['first name'].value} {names['last name'].value}", names["first name"].source)
    for index, line in enumerate(lines):
        if "@" in line or _PHONE.search(line, 0, _LONGEST_LINE):
            yield from _unlabelled(line[:_LONGEST_LINE], place.format(index + 1))


def _next_line(lines: Sequence[str], index: int) -> str:
    """The value of a label that stands on a line of its own."""
    following = next((line.strip() for line in lines[index + 1 : index + 3] if line.strip()), "")
    return "" if labelled(following[:_LONGEST_LINE]) else following


def _labelled(kind: str, value: str, source: str) -> Iterator[Hint]:
    value = " ".join(value[:_LONGEST_VALUE].split())
    if kind == "phone":
        yield from (Hint(kind, number, source) for number in _phones(value))
    elif kind == "email":
        yield from (Hint(kind, address, source) for address in _emails(value))
    elif _is_name(value) if kind == "name" else _is_postal(value):
        yield Hint(kind, value, source)


def _unlabelled(line: str, source: str) -> Iterator[Hint]:
    yield from (Hint("email", address, source) for address in _emails(line))
    yield from (Hint("phone", number, source) for number in _phones(line) if _is_dialled(number))


def _in_links(html: str) -> Iterator[Hint]:
    for scheme, target in _LINK.findall(html):
        value = unescape(target).replace("%20", " ").replace("%2B", "+").replace("%40", "@")
        found = _emails(value) if scheme.lower() == "mailto" else _phones(value)
        yield from (Hint("email" if scheme.lower() == "mailto" else "phone", one, "html, a link") for one in found)


def _emails(line: str) -> list[str]:
    return (
        [found.strip("'.-") for found in _EMAIL.findall(line) if is_address(found.strip("'.-"))] if "@" in line else []
    )


def _phones(line: str) -> list[str]:
    """What can be dialled: seven digits or more, brackets in pairs, no date."""
    numbers = (found.strip(" \u00a0./-") for found in _PHONE.findall(line))
    return [one for one in numbers if 7 <= _digits(one) <= _MOST_DIGITS and _paired(one) and not _DATE.match(one)]


def _is_dialled(number: str) -> bool:
    return _digits(number) >= 9 and bool(_DIALLED.match(number))


def _digits(number: str) -> int:
    return sum(map(str.isdigit, number))


def _paired(number: str) -> bool:
    return number.count("(") == number.count(")")


def _is_name(value: str) -> bool:
    fits = 2 <= len(value) <= 80 and len(value.split()) <= 6 and value.lower() not in PLACEHOLDER_NAMES
    return fits and any(c.isalpha() for c in value) and not any(c.isdigit() or c in "@<>{}[]|/\\:;" for c in value)


def _is_postal(value: str) -> bool:
    return len(value) > 4 and "@" not in value and any(c.isalpha() for c in value)


def _is_the_candidates(hint: Hint, candidate: Candidate) -> bool:
    """Whether it is the name or address that the candidate is known by."""
    own = {"email": candidate.email, "name": candidate.name}.get(hint.kind)
    return own is not None and hint.value.lower() == own.lower()


def _known(fields: Fields) -> _Known:
    """Nobody's address among the recipients is the candidate's, nor one of the job board that sent the mail."""
    addresses = {mailbox.address.lower() for value in _recipients(fields) for mailbox in read_mailboxes(value)}
    sender = sender_address(fields).lower()
    domain = sender.rpartition("@")[2] if is_system_address(sender) else ""
    return _Known(frozenset(addresses), domain)


def _recipients(fields: Fields) -> Iterator[str]:
    for header in (b"to", b"cc", b"delivered-to", b"x-original-to", b"x-itrackid-clientsettings-name"):
        yield from (decode_header(value[:_LONGEST_TEXT]).value for value in values_of(fields, header)[:2])


def _is_news(hint: Hint, known: _Known) -> bool:
    value = hint.value.lower()
    domain = value.rpartition("@")[2]
    return value not in known.addresses and not is_system_address(value) and domain != known.domain


def _key(hint: Hint) -> tuple[str, str]:
    """What makes two hints one: the same number however it is grouped, with or without its trunk zero."""
    if hint.kind == "phone":
        return hint.kind, "".join(filter(str.isdigit, hint.value))[-9:]
    return hint.kind, " ".join(hint.value.lower().split())


def lines_of(html: str) -> list[str]:
    """HTML as lines of text: blocks end lines, cells of a table stand behind a tab; linear in the text's length."""
    pieces = _TAG.split(_without_silent(html[:_LONGEST_HTML]).replace("\n", " ").replace("\t", " "))
    if len(pieces) > 1:
        pieces[1::2] = map(_SPACE.get, "\n".join(pieces[1::2]).lower().split("\n"), repeat("\n"))
    lines = unescape("".join(pieces)).split("\n")
    return [
        _of_cells(line) if "\t" in line else " ".join(line.split()) for line in lines if line and not line.isspace()
    ]


def _of_cells(line: str) -> str:
    """The cells of a table's row, with a tab between them: the first may be the second's label."""
    cells = [" ".join(cell.split()) for cell in line.split("\t")]
    return "\t".join(cell for cell in cells if cell)


def _without_silent(html: str) -> str:
    """Without comments, scripts, styles and the head; what is left open reaches to the end."""
    pieces, position = [], 0
    while found := _SILENT.search(html, position):
        pieces.append(html[position : found.start()])
        closed = _CLOSINGS[(found[1] or "").lower()].search(html, found.end())
        if closed is None:
            return "".join(pieces)
        position = closed.end()
    return "".join([*pieces, html[position:]])
