"""Mailboxes out of an address header as people and programs really write it (RFC 5322, section 3.4, and what breaks it).

mail-parser reads what keeps the rules and gives up on the rest, and a candidate without an address is a candidate lost;
so the reading is done here, and mail-parser is asked for its opinion.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mailparser.utils import get_addresses

from apptrack_ingest.parse.text import clean_line, decode_header

# Enough for any list of senders: the first few are all that is ever wanted.
_LONGEST_VALUE = 16 * 1024
# A second opinion on the beginning of the header is enough; a hostile one is to cost little.
_OPINION_WITHIN = 4 * 1024
# RFC 5321, section 4.5.3.1: 64 octets, "@", 255 octets. What is longer is no address.
LONGEST_ADDRESS = 320
# Characters of a name as it is written; encoded words take up to twelve for one.
_LONGEST_NAME = 4 * 1024
# "Smith, Jane, PhD <jane@example.org>": pieces of an unquoted name with commas.
_MOST_CARRIED = 5

# mail-parser logs headers it cannot decode as they are: candidates' data, which must not reach any log.
_mailparser_log = logging.getLogger("mailparser")
_mailparser_log.addHandler(logging.NullHandler())
_mailparser_log.propagate = False

# One step through a header: an encoded word (whatever specials it holds against the rules), a quoted string, an address
# in angle brackets, white space, a special, or a run of anything else. No alternative can scan far and fail, but for the
# quoted string, which is tried no more once one was left open.
_ENCODED = r"(?P<encoded>=\?[^?\s<>]{1,60}\?[bBqQ]\?[^?<>]{0,1000}\?=)"
_QUOTED = r'"(?P<quoted>(?:[^"\\]|\\.)*+)"'
_ANGLE = r"<(?P<angle>[^<>]*)>"
_LITERAL = r"(?<=@)\[[\w.:-]{1,60}\]"
_REST = rf"(?P<space>\s+)|(?P<special>[,;:<>()\"])|(?P<run>(?:{_LITERAL}|[^\s,;:<>()\"=@])+|[@=])"
_STEP = re.compile(f"{_ENCODED}|{_QUOTED}|{_ANGLE}|{_REST}", re.DOTALL)
_STEP_UNQUOTED = re.compile(f"{_ENCODED}|{_ANGLE}|{_REST}", re.DOTALL)
_IN_COMMENT = re.compile(r"\\.|[()]|[^\\()]+|\\", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_COMMENT = re.compile(r"\([^()]*\)")
_AROUND_DOTS = re.compile(r"\s*([.@])\s*")
_ATEXT = r"[^\s\"<>(),;:@\[\]\\\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]+"
_ADDRESS = re.compile(rf'(?:{_ATEXT}|"(?:[^"\\\x00-\x1f\ud800-\udfff]|\\[^\ud800-\udfff])+")@(?:{_ATEXT}|\[[\w.:-]+\])')
# `address`, `<address>`, `Jane Doe <address>` or `"Doe, Jane" <address>`, in ASCII.
_PLAIN_NAME = r"((?:[\w!#$%&'*+/?^`{|}~-]++\s++)*+|\"[^\"\\]*+\"\s*+)"
_PLAIN_ADDRESS = r"\w[\w+-]*+(?:\.[\w+-]++)*+@[\w-]++(?:\.[\w-]++)++"
_PLAIN = re.compile(rf"\s*+(?:{_PLAIN_NAME}<({_PLAIN_ADDRESS})>|({_PLAIN_ADDRESS}))\s*+", re.ASCII)
# `Jane Doe (address)`, as idibu names the owner of an advert.
_PLAIN_IN_BRACKETS = re.compile(rf"\s*+((?:[\w!#$%&'*+/?^`{{|}}~-]++\s++)++)\(({_PLAIN_ADDRESS})\)\s*+", re.ASCII)
# Directions and invisible marks that can make a name or address show as another; the joiners that Persian needs stay.
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad]")


class Mailbox(NamedTuple):
    """A mailbox as the header shows it: `name` decoded (None: none there), `address` as written but without comments
    and folding. What stands in angle brackets and is no address is kept as it is: see `is_address`. `certain` is False
    where the name holds bytes of no certain charset."""

    name: str | None
    address: str
    certain: bool = True


@dataclass(slots=True)
class _Item:
    """What stands between two commas. Words are kept as they are shown (unquoted, encoded words still encoded) and as
    they are written; those after the address in angle brackets apart, for they may belong to the next one."""

    shown: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    trailing: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    angle: str | None = None
    ended_by: str = ""
    spaced: bool = True

    def add(self, shown: str, written: str) -> None:
        if self.angle is not None:
            self._append(self.trailing, shown)
        else:
            self._append(self.shown, shown)
            self._append(self.written, written)
        self.spaced = False

    def _append(self, words: list[str], word: str) -> None:
        if self.spaced or not words:
            words.append(word)
        else:
            words[-1] += word


def read_mailboxes(value: str) -> Iterator[Mailbox]:
    """The mailboxes of an unfolded address header, one at a time, in time linear in what was asked for.

    Members of groups count like others. Read although against the rules: addresses without angle brackets beside a
    name or one after another, a comma or semicolon inside an unquoted name, brackets and quotes left open or doubled,
    `mailto:`, white space inside an address.
    """
    if plain := _plain_mailbox(value):
        yield plain
        return
    carried: list[str] = []
    for item in _Scan(_INVISIBLE.sub("", value[:_LONGEST_VALUE])).items():
        mailboxes = _mailboxes(item, carried)
        yield from mailboxes
        goes_on = item.shown and not mailboxes and len(carried) < _MOST_CARRIED
        carried = [*carried, " ".join(item.shown) + item.ended_by] if goes_on else []


def _plain_mailbox(value: str) -> Mailbox | None:
    """The mailbox where a name and an address stand there as plain as can be: the same as `_Scan` finds, and sooner."""
    fits = len(value) <= LONGEST_ADDRESS and value.isascii() and value.isprintable() and "=?" not in value
    if not fits:
        return None
    if found := _PLAIN.fullmatch(value):
        name = (found[1] or "").strip(" ").strip('"')
        return Mailbox(" ".join(name.split()) or None, found[2] or found[3])
    found = _PLAIN_IN_BRACKETS.fullmatch(value)
    return Mailbox(" ".join(found[1].split()), found[2]) if found else None


def agreed(value: str, address: str) -> bool:
    """Whether mail-parser, which keeps to the rules, reads the same first address; it is not asked where a name and an
    address stand there as plain as can be."""
    plainly = _PLAIN.fullmatch(value)
    if plainly:
        return (plainly[2] or plainly[3]).casefold() == address.casefold()
    plain = value[:_OPINION_WITHIN].replace("=?", " ")  # it raises on damaged encoded words
    try:
        found = get_addresses(clean_line(plain).value)
    except Exception:  # noqa: BLE001 - an opinion: whatever it stumbles over must not cost the mail
        return False
    return bool(found) and str(found[0][1]).casefold() == address.casefold()


def is_address(text: str) -> bool:
    """Whether a text has the form of one address, `local@domain`, and nothing else."""
    return len(text) <= LONGEST_ADDRESS and bool(_ADDRESS.fullmatch(text))


class _Scan:
    """One pass over a header. A quote or comment that is never closed is found out once and is nothing special then."""

    def __init__(self, value: str) -> None:
        self._value = value
        self._position = 0
        self._step = _STEP
        self._comments = True
        self._item = _Item()

    def items(self) -> Iterator[_Item]:
        """Split at the commas and semicolons that are none of a quoted string's, a comment's or an address's."""
        while found := self._step.match(self._value, self._position):
            self._position = found.end()
            if found["special"]:
                yield from self._special(found["special"])
            elif found["angle"] is not None:
                if self._item.angle is not None:  # a comma was forgotten
                    yield self._done(",", keep=self._item.trailing)
                self._item.angle, self._item.spaced = found["angle"], True
            elif found["space"]:
                self._item.spaced = True
            else:
                self._word(found)
        yield self._done("")

    def _special(self, special: str) -> Iterator[_Item]:
        self._item.spaced = True
        if special in ",;":
            yield self._done(special)
        elif special == ":" and self._item.angle is None and not any("@" in word for word in self._item.written):
            self._item = _Item()  # what stands before a colon is a group's name, or "mailto"
        elif special == "(" and self._comments:
            self._comment()
        elif special == '"':
            self._step = _STEP_UNQUOTED

    def _word(self, found: re.Match[str]) -> None:
        quoted = found.groupdict().get("quoted")
        self._item.add(found[0] if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted), found[0])

    def _comment(self) -> None:
        """Read a comment, which may hold others."""
        depth = 1
        pieces: list[str] = []
        for piece in _IN_COMMENT.finditer(self._value, self._position):
            depth += {"(": 1, ")": -1}.get(piece[0], 0)
            if depth == 0:
                self._item.comments.append("".join(pieces))
                self._position = piece.end()
                return
            pieces.append(piece[0][-1] if piece[0].startswith("\\") else piece[0])
        self._comments = False

    def _done(self, ended_by: str, keep: Iterable[str] = ()) -> _Item:
        done, self._item = self._item, _Item(shown=list(keep), written=list(keep))
        done.ended_by = ended_by
        return done


def _mailboxes(item: _Item, carried: list[str]) -> list[Mailbox]:
    address = _in_angles(item.angle) if item.angle else ""
    bare = [] if is_address(address) else _bare(item)  # "jane@example.org <Jane Doe>", or nothing between the brackets
    if bare or not address:
        return bare
    return [_mailbox([*carried, *item.shown] or item.trailing or item.comments, address)]


def _bare(item: _Item) -> list[Mailbox]:
    """Addresses without angle brackets: one beside its name or comment, or several that share the item."""
    words = [(_stripped(written), shown) for written, shown in zip(item.written, item.shown, strict=True)]
    addresses = [word for word, _ in words if is_address(word)]
    if not addresses:
        return _hidden(item)
    if len(addresses) > 1:
        return [Mailbox(None, address) for address in addresses]
    return [_mailbox([shown for word, shown in words if word != addresses[0]] or item.comments, addresses[0])]


def _hidden(item: _Item) -> list[Mailbox]:
    """The one address that is written with blanks at its dots, or stands inside quotes, an encoded word or a comment."""
    closed_up = _AROUND_DOTS.sub(r"\1", " ".join([*item.written, *item.trailing]))
    quoted, comments = " ".join(item.shown), " ".join(item.comments)
    decoded = decode_header(quoted.encode("utf-8", "replace")).value if "=?" in quoted else ""
    for text, name in ((closed_up, item.comments), (quoted, []), (decoded, []), (comments, item.shown)):
        addresses = [word for word in map(_stripped, text.split()) if is_address(word)]
        if addresses:
            return [_mailbox(name, addresses[0])]
    return []


def _stripped(word: str) -> str:
    word = word.strip("<>`").rstrip(".:")
    if word.endswith("'"):  # no domain ends so: a quote; one that only begins is the address's (RFC 5322, atext)
        word = word.rstrip("'").removeprefix("'")
    return word[1:-1] if word.startswith("[") and word.endswith("]") else word


def _in_angles(angle: str) -> str:
    """The address between angle brackets, without comments, a route (RFC 5322, section 4.4), `mailto:` or folding.

    With white space inside it is kept as it stands: to take one of its pieces might be to write to somebody else.
    """
    text = decode_header(angle.encode("utf-8", "replace")).value if "=?" in angle else angle
    text = _COMMENT.sub("", text).strip()
    if text.startswith("@") or text.lower().startswith("mailto:"):
        text = text.partition(":")[2]
    text = _AROUND_DOTS.sub(r"\1", text).strip().rstrip(".,;")
    unquoted = text[1:-1] if text[:1] in ("'", '"') and text[:1] == text[-1:] else text
    return next((one for one in (unquoted, text) if is_address(one)), clean_line(text).value[:LONGEST_ADDRESS])


def _mailbox(words: Iterable[str], address: str) -> Mailbox:
    """The name is made of words as they are shown, encoded words decoded."""
    name = decode_header(" ".join(words)[:_LONGEST_NAME].encode("utf-8", "replace"))
    return Mailbox(" ".join(_INVISIBLE.sub("", name.value).split()) or None, address, name.certain)
