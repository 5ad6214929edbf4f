"""Compares what we read in a folder of mails with what the majority of other parsers reads in them.

Run `python benchmarks/corpus.py CORPUS REFERENCE [--dump FILE]`. CORPUS is the folder that the reference's paths are
relative to, REFERENCE a file of JSON lines (`path`, `subject`, `from`, `attachments` with `name` and `sha256`). Every file
in CORPUS is read, in a process of its own that is killed when it runs over time or out of memory; those without a reference
only have to survive. `--dump` writes what we read in the reference's form, with `error` in place of the fields where there
was one. The last line is `matches: 99.6 % (529 of 531)`: mails that agree in every field.

The reference is the plain reading of a mail; our own says more, and is mapped back: unwrapping is off, and what was found
inside another document, or by a repair of the structure alone, is left out, as are texts without a name that nobody
called an attachment.
"""

import argparse
import contextlib
import hashlib
import json
import resource
import unicodedata
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import TimeoutError as Overran
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pebble

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.model import Document
from apptrack_ingest.parse.candidate import sender_address
from apptrack_ingest.parse.headers import header_block, scan_header_block
from apptrack_ingest.parse.mime import parse

DEADLINE = 30.0  # seconds for one mail
MEMORY = 1 << 30  # bytes of address space for one process
PROCESSES = 2

Reading = dict[str, Any]


def read(path: str) -> Reading:
    """What we read in one mail, in the reference's form; runs in the bounded process."""
    raw = Path(path).read_bytes()
    try:
        parsed = parse(raw, unwrap=False)
    except Unreadable as error:
        return {"error": f"unreadable: {error}"}
    return {
        "subject": plain(parsed.subject),
        "from": address(first_sender(raw)),
        "attachments": sorted(
            (attachment(document) for document in parsed.documents if counts(document)),
            key=lambda one: (one["name"], one["sha256"]),
        ),
    }


def first_sender(raw: bytes) -> str:
    """The candidate may be found elsewhere, in Reply-To say; the plain reading is of From alone."""
    return sender_address(scan_header_block(header_block(raw, 1 << 20) or b""))


def counts(document: Document) -> bool:
    """Whether the plain reading has it: a part of this mail itself, and one that is not just nameless text."""
    if document.inside is not None or "recovered" in document.flags or document.claimed_type.startswith("multipart/"):
        return False
    named = document.original_name or document.disposition == "attachment"
    return bool(named) or not document.claimed_type.startswith("text/")


def attachment(document: Document) -> dict[str, str]:
    content = document.content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip(b"\n")
    sha256 = "MSG" if document.claimed_type == "message/rfc822" else hashlib.sha256(content).hexdigest()
    return {"name": plain(document.original_name), "type": document.claimed_type, "sha256": sha256}


def plain(text: str | None) -> str:
    return " ".join(unicodedata.normalize("NFC", text or "").split())


def address(found: str) -> str:
    local, at, domain = found.lower().rpartition("@")
    with contextlib.suppress(UnicodeError):
        domain = domain.encode("ascii").decode("idna") if "xn--" in domain else domain
    return unicodedata.normalize("NFC", local + at + domain)


def differences(ours: Reading, theirs: Reading) -> dict[str, tuple[object, object]]:
    """The fields that differ, each with what they and we read; attachments as multisets."""
    if "error" in ours:
        return {"error": ("a mail", ours["error"])}
    found: dict[str, tuple[object, object]] = {
        name: (theirs[name], ours[name]) for name in ("subject", "from") if ours[name] != theirs[name]
    }
    views = {
        "number of attachments": lambda reading: len(reading["attachments"]),
        "names": lambda reading: Counter(one["name"] for one in reading["attachments"]),
        "contents": lambda reading: Counter(one["sha256"] for one in reading["attachments"]),
        "attachments": lambda reading: Counter((one["name"], one["sha256"]) for one in reading["attachments"]),
    }
    for name, view in views.items():
        if view(theirs) != view(ours):
            found[name] = (view(theirs), view(ours))
    return found


FIELDS = ("subject", "from", "number of attachments", "names", "contents", "attachments")


@dataclass
class Score:
    """The counts over all mails, and how each mail that does not match differs."""

    expected: int = 0
    matched: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    differing: list[tuple[str, dict[str, tuple[object, object]]]] = field(default_factory=list)

    def add(self, path: str, ours: Reading, theirs: Reading | None) -> None:
        if "error" in ours:
            self.errors[ours["error"]] += 1
            print(f"error in {path}: {ours['error']}")
        if theirs is None:
            return
        self.expected += 1
        found = differences(ours, theirs)
        self.fields.update(name for name in FIELDS if name not in found and "error" not in found)
        if found:
            self.differing.append((path, found))
        else:
            self.matched += 1

    def print(self) -> None:
        for path, found in self.differing:
            print(path)
            for name, (theirs, ours) in found.items():
                print(
                    f"    {name}: the reference has {shown(theirs)}\n    {' ' * len(name)}             we have {shown(ours)}"
                )
        for name in FIELDS:
            same = self.fields[name]
            print(f"{name}: {same} of {self.expected} match, {self.expected - same} differ")
        failed = self.errors.total()
        print(f"crashed or ran over time: {failed} {dict(self.errors) if failed else ''}".rstrip())
        share = 100 * self.matched / self.expected if self.expected else 0.0
        print(f"matches: {share:.1f} % ({self.matched} of {self.expected})")


def shown(value: object) -> str:
    if isinstance(value, Counter):
        return repr(sorted(value.elements()))
    return repr(value)


def readings(root: Path, paths: list[str]) -> Iterator[tuple[str, Reading]]:
    """Each mail with what was read in it, in order; a crash or an overrun is an `error`."""
    with pebble.ProcessPool(
        max_workers=PROCESSES, context=get_context("spawn"), initializer=bound, initargs=(MEMORY,)
    ) as pool:
        futures = [(path, pool.schedule(read, args=(str(root / path),), timeout=DEADLINE)) for path in paths]
        for path, future in futures:
            yield path, outcome(future)


def outcome(future: "pebble.ProcessFuture[Reading]") -> Reading:
    try:
        return future.result()
    except Overran:
        return {"error": "ran over time"}
    except Exception as error:  # noqa: BLE001 - whatever it was, it is what this script is there to count
        return {"error": f"crashed: {type(error).__name__}"}


def bound(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def compare(root: Path, reference: dict[str, Reading], dump: Path | None) -> Score:
    there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    score, lines = Score(), []
    for path in sorted(reference.keys() - there):
        score.add(path, {"error": "no such mail"}, reference[path])
    for path, ours in readings(root, sorted(there)):
        score.add(path, ours, reference.get(path))
        lines.append(json.dumps({"path": path, **ours}, ensure_ascii=False) + "\n")
    if dump:
        dump.write_text("".join(lines), encoding="utf-8")
    return score


def references(file: Path) -> dict[str, Reading]:
    with file.open(encoding="utf-8") as lines:
        read_lines = [json.loads(line) for line in lines if line.strip()]
    return {one["path"]: one for one in read_lines}


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("corpus", type=Path)
    options.add_argument("reference", type=Path)
    options.add_argument("--dump", type=Path)
    given = options.parse_args()
    compare(given.corpus, references(given.reference), given.dump).print()


if __name__ == "__main__":
    main()
