"""The tree of a mail's parts (RFC 2046), found by its boundary lines in one pass over the bytes, whatever is damaged.

The standard library's parser is not used: it goes line by line, takes several times the mail's size in memory, and ends a
part's headers where one of them is broken.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.parse.headers import Fields
from apptrack_ingest.parse.part import LONGEST_USUAL, Head, head_of, read_head, usual_head

# RFC 5322, section 3.6.8; section 4.5: white space before the colon, obsolete but seen.
_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:")
# Headers with nothing to repair, up to the empty line. None begins with a hyphen, as a boundary does.
_PLAIN_FIELD = rb"[!-,.-9;-~][!-9;-~]*+[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+"
_PLAIN_HEAD = re.compile(rb"((?:" + _PLAIN_FIELD + rb")*+)\r?\n")
_BARE_PARAMETER = re.compile(rb"[\w*-]+=")
# Bytes read of one header, and of the headers of all parts together: real parts have some hundred.
LONGEST_HEADER = 8 * 1024
ALL_HEADS = 1024 * 1024
# A line of an undeclared boundary is looked for in the beginning of a multipart.
_GUESSED_WITHIN = 64 * 1024
_GUESS = re.compile(
    rb"^--([^\s-][^\r\n]{0,198}|-[^\r\n]{1,198}?)[ \t]*\r?\ncontent-[a-z-]+[ \t]*:", re.MULTILINE | re.IGNORECASE
)


@dataclass(slots=True)
class Part:
    """A part with its own head; its body is `raw[start:end]`, of which `children` are parts in a multipart and what
    stands before the first of them the preamble, `raw[start:preamble_end]`. `recovered` parts are there by a repair only:
    no reader that keeps to RFC 2046 sees them."""

    head: Head
    start: int
    end: int
    children: list["Part"] = field(default_factory=list)
    preamble_end: int = 0
    closed: bool = False
    recovered: bool = False

    def leaves(self, attached: bool = False) -> Iterator[tuple["Part", bool]]:
        """Leaf parts in order, each with whether it lies inside an attached container (RFC 2183, section 2.9)."""
        if not self.children:
            yield self, attached
        for child in self.children:
            yield from child.leaves(attached or self.head.disposition == "attachment")


@dataclass(slots=True)
class Budget:
    """What one received mail may still take, attached mails included; overdrawn it is `Unreadable`."""

    parts: int
    depth: int
    decoded_bytes: int
    head_bytes: int = ALL_HEADS

    def copy(self) -> "Budget":
        return replace(self)

    def restore(self, before: "Budget") -> None:
        """Give back what was taken since the copy: what it was taken for is not kept."""
        self.parts, self.decoded_bytes, self.head_bytes = before.parts, before.decoded_bytes, before.head_bytes

    def take_part(self) -> None:
        self.parts -= 1
        if self.parts < 0:
            raise Unreadable("too-many-parts")

    def take_decoded(self, size: int) -> None:
        self.decoded_bytes -= size
        if self.decoded_bytes < 0:
            raise Unreadable("too-large")


def split(raw: bytes, start: int, fields: Fields, budget: Budget) -> tuple[Part, list[str]]:
    """The tree of the mail whose body begins at `start`, and warnings in words.

    Raises `Unreadable` too-many-parts or too-deep.
    """
    return _Splitter(raw, budget).split(Part(read_head(fields), start, len(raw)))


class _Splitter:
    """Walks the lines that begin with two hyphens. `open` are the multiparts that are not over, outermost first, `marks`
    their boundaries by how deep they are; of two with the same one the inner counts.
    `beginnings` are the first `width` bytes of each: what a line is looked at first; `needle` is how a line after another
    begins that can be one of them: the longer what is looked for, the faster it is found."""

    def __init__(self, raw: bytes, budget: Budget) -> None:
        self.raw = raw
        self.budget = budget
        self.warnings: list[str] = []
        self.open: list[Part] = []
        self.marks: list[bytes] = []
        self.depths: dict[bytes, int] = {}
        self.width = 0
        self.beginnings: frozenset[bytes] = frozenset()
        self.needle = b"\n--"
        self.leaf: Part | None = None
        self.text_from = 0

    def split(self, root: Part) -> tuple[Part, list[str]]:
        self._enter(root)
        position = root.start
        while self.open and (line := self._boundary_line(position)) is not None:
            position = self._take(*line)
        self._leave_all(len(self.raw))
        return root, self.warnings

    def _boundary_line(self, position: int) -> tuple[int, int, int, bool] | None:
        """Start and end of the next boundary line, from a line's start on, and what it is (see `_mark`). A line that is none
        costs one look at as many bytes as the shortest boundary has."""
        raw, find, width, beginnings, needle = self.raw, self.raw.find, self.width, self.beginnings, self.needle
        if raw.startswith(b"--", position):
            start = position
        else:  # base64 has no hyphen, and a single byte is found thirty times as fast as the needle
            hyphen = find(b"-", position)
            start = find(needle, max(position, hyphen - 1)) + 1 or -1 if hyphen >= 0 else -1
        while start >= 0:
            if raw[start + 2 : start + 2 + width] in beginnings:
                end = find(b"\n", start) + 1 or len(raw)
                depth, closes = self._mark(start, end)
                if depth is not None and (not self.open[depth].closed or self._goes_on(end)):
                    return start, end, depth, closes
            start = find(needle, start + 2) + 1 or -1
        return None

    def _take(self, start: int, end: int, depth: int, closes: bool) -> int:
        """Take a boundary line; the position from which to read on."""
        before = self._before(start)
        self._end_text(before)
        self._leave(depth + 1, before)
        container = self.open[-1]
        self.text_from = end
        if closes:
            container.closed = True
            return end
        if container.closed:
            self.warnings.append("parts follow after the end of a multipart; they were read as its own")
            container.closed, container.recovered = False, True
        return self._part(container, end)

    def _mark(self, start: int, end: int) -> tuple[int | None, bool]:
        """How deep the multipart is whose boundary this line is, and whether it is its last. What follows after a blank
        is passed over: RFC 2046, section 5.1.1, asks only for the line's beginning."""
        line = self.raw[start + 2 : end].rstrip(b" \t\r\n")
        depth = self.depths.get(line)
        if depth is not None:
            return depth, False
        if line.endswith(b"--") and (depth := self.depths.get(line[:-2].rstrip(b" \t"))) is not None:
            return depth, True
        word, blank, _ = line.partition(b" ")
        if not blank:
            return None, False
        closes = word not in self.depths
        return self.depths.get(word[:-2] if closes and word.endswith(b"--") else word), closes

    def _goes_on(self, position: int) -> bool:
        """Whether a header of MIME's follows, and not just any text."""
        return self.raw[position : position + 8].lower() == b"content-"

    def _part(self, container: Part, start: int) -> int:
        self.budget.take_part()
        kind = "message/rfc822" if container.head.content_type == "multipart/digest" else "text/plain"
        head, body = self._head(start, kind)
        if body == start and self._repeated(start):
            return start
        part = Part(head, body, len(self.raw), recovered=container.recovered)
        container.children.append(part)
        self._enter(part)
        return body

    def _repeated(self, start: int) -> bool:
        """Whether the same line follows once more: a boundary written twice is no empty part."""
        end = self.raw.find(b"\n", start) + 1 or len(self.raw)
        return self.raw.startswith(b"--", start) and self._mark(start, end) == (len(self.open) - 1, False)

    def _enter(self, part: Part) -> None:
        """Begin a part: a multipart with a boundary is opened, everything else is a leaf."""
        mark = self._boundary(part) if part.head.is_multipart else None
        if mark is None:
            self.leaf = part
            return
        if len(self.open) >= self.budget.depth:
            raise Unreadable("too-deep")
        self.leaf, self.text_from = None, part.start
        self.depths[mark] = len(self.open)
        self.open.append(part)
        self.marks.append(mark)
        self._look_for()

    def _look_for(self) -> None:
        marks = self.marks
        if not marks:
            return
        if len(marks) == 1:
            self.width, self.beginnings, self.needle = len(marks[0]), frozenset(marks), b"\n--" + marks[0]
            return
        self.width = min(map(len, marks))
        self.beginnings = frozenset(mark[: self.width] for mark in marks)
        self.needle = b"\n--" + _common_beginning(marks)

    def _boundary(self, part: Part) -> bytes | None:
        declared = part.head.boundary
        if declared and (self.open or b"--" + declared in self.raw):
            return declared
        guess = _GUESS.search(self.raw, part.start, part.start + _GUESSED_WITHIN)
        mark = guess[1].rstrip(b" \t") if guess else None
        part.recovered = mark is not None
        known = mark is None or mark in self.depths or mark.removesuffix(b"--") in self.depths
        self.warnings.append(
            "a multipart part names no boundary that is there; it was read as text"
            if known
            else "a multipart part names no boundary that is there; the one that its lines show was used"
        )
        return None if known else mark

    def _end_text(self, end: int) -> None:
        """End what was being read before a boundary: a leaf, or text that belongs to no part."""
        if self.leaf is not None:
            self.leaf.end = max(self.leaf.start, end)
            self.leaf = None
        elif self.open:
            self._between_parts(self.open[-1], end)

    def _between_parts(self, container: Part, end: int) -> None:
        if not container.children:
            container.preamble_end = max(container.start, end)
        elif self.raw[self.text_from : min(end, self.text_from + 1024)].strip():
            self.warnings.append("text after the last part was left out")

    def _leave(self, depth: int, end: int) -> None:
        """Close all multiparts from that depth on."""
        if len(self.open) <= depth:
            return
        while len(self.open) > depth:
            container = self.open.pop()
            mark = self.marks.pop()
            container.end = end
            self._forget(mark)
            if not container.children:
                self.warnings.append("a multipart part never starts its first part; it was read as text")
            elif not container.closed:
                self.warnings.append("a multipart part is not closed: the mail may have been cut short")
        self._look_for()

    def _forget(self, mark: bytes) -> None:
        outer = [depth for depth, other in enumerate(self.marks) if other == mark] if mark in self.depths else []
        if outer:
            self.depths[mark] = outer[-1]
        else:
            self.depths.pop(mark, None)

    def _leave_all(self, end: int) -> None:
        self._end_text(end)
        self._leave(0, end)

    def _before(self, position: int) -> int:
        """The end of the text before a boundary line: the line end before it belongs to the boundary (RFC 2046, 5.1.1)."""
        if position > 1 and self.raw.startswith(b"\r\n", position - 2):
            return position - 2
        return position - 1 if position and self.raw.startswith(b"\n", position - 1) else position

    def _head(self, start: int, kind: str) -> tuple[Head, int]:
        """What a part's headers say, its type where they name none, and where its body begins: after an empty line, at a
        boundary, or where a line is no header and none of MIME's follows."""
        plain = _PLAIN_HEAD.match(self.raw, start, start + LONGEST_HEADER)
        if plain is None or self.budget.head_bytes < len(plain[1]):
            fields, body = self._odd_head(start)
            return read_head(fields, kind), body
        lines = plain[1]
        self.budget.head_bytes -= len(lines)
        return usual_head(lines, kind) if len(lines) <= LONGEST_USUAL else head_of(lines, kind), plain.end()

    def _odd_head(self, start: int) -> tuple[list[tuple[bytes, bytes]], int]:
        fields: list[tuple[bytes, bytes]] = []
        position = start
        while position < len(self.raw):
            end = self.raw.find(b"\n", position) + 1 or len(self.raw)
            if position + 2 >= end and not self.raw[position:end].strip(b"\r\n"):
                return fields, end
            if self.raw.startswith(b"--", position) and self._mark(position, end)[0] is not None:
                return fields, position
            self.budget.head_bytes -= end - position
            if self.budget.head_bytes < 0:
                self.warnings.append("the parts' headers are too long; the rest of them was read as text")
                return fields, position
            if not self._take_header(fields, position, end) and not self._goes_on(end):
                self.warnings.append("a part's headers run into its body")
                return fields, position
            position = end
        return fields, len(self.raw)

    def _take_header(self, fields: list[tuple[bytes, bytes]], start: int, end: int) -> bool:
        """Add one header line to the fields; False when it is none."""
        line = self.raw[start : min(end, start + LONGEST_HEADER)]
        match = _FIELD.match(line)
        if match:
            fields.append((match[1], line[match.end() :]))
            return True
        continues = line[:1] in (b" ", b"\t") or self._lacks_its_fold(fields, line)
        if continues and fields and len(fields[-1][1]) < LONGEST_HEADER:
            fields[-1] = (fields[-1][0], fields[-1][1] + line)
        return continues

    def _lacks_its_fold(self, fields: list[tuple[bytes, bytes]], line: bytes) -> bool:
        """A parameter on a line of its own, whose leading blank was lost on the way."""
        return bool(fields) and fields[-1][1].rstrip().endswith(b";") and _BARE_PARAMETER.match(line) is not None


def _common_beginning(marks: Sequence[bytes]) -> bytes:
    first, last = min(marks), max(marks)
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((at for at, (one, other) in pairs if one != other), len(first))]
