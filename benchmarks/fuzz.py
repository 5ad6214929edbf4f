"""Looks for mails that break the parser, guided by the coverage of its code (atheris, libFuzzer).

Run `python benchmarks/fuzz.py [SECONDS] [--corpus DIR]`: it begins with the mails of tests/mails and stops after SECONDS
(60), or at the first finding: that it keeps in a file, names it, and ends with a status other than 0. `--corpus` keeps what
led to new code for the next run. A finding becomes a test in tests/unit/parse.

A finding is: anything that escapes but `Unreadable`, or that with the code parser-error; more than ten seconds; and a
reading that breaks a promise (see `check`). atheris has wheels for some systems only: elsewhere this says so and ends.
"""

import argparse
import dataclasses
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apptrack_ingest.model import Document, Parsed

SEEDS = Path(__file__).parents[1] / "tests" / "mails"
LONGEST = 16 * 1024
DEADLINE = 10  # seconds for one mail
GRACE = 60  # seconds to begin and to end
HEADERS = 1 << 20
# What a generator of bytes would take ages to come upon.
WORDS = (
    *("Content-Type: ", "Content-Disposition: attachment", "Content-Transfer-Encoding: base64", "multipart/mixed"),
    *(
        "message/rfc822",
        "boundary=",
        "filename*0*=utf-8''",
        "name=",
        "charset=",
        "=?utf-8?q?",
        "=?iso-2022-jp?B?",
        "?=",
    ),
    *(
        "quoted-printable",
        "x-uuencode",
        "begin 644 a",
        "application/ms-tnef",
        "application/pkcs7-mime",
        "X-iTrackID: 7",
    ),
    *("X-iTrackID-ClientReference: ", "From: ", "Subject: ", "-----BEGIN PGP SIGNED MESSAGE-----", "=ybegin ", "utf-7"),
)


class Broken(Exception):
    """A reading that breaks a promise of the parser."""


def fuzz(seconds: int, corpus: Path, work: Path) -> None:
    """Read mails until the time is over or there is a finding; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["apptrack_ingest.parse"]):
        from apptrack_ingest.parse.mime import parse
    from apptrack_ingest.errors import Unreadable

    def one(raw: bytes) -> None:
        try:
            parsed = parse(raw)
        except Unreadable as error:
            if error.code == "parser-error":
                raise Broken(f"{error.code}: {error.detail}") from error
            return
        check(raw, parsed)

    words = work / "words"
    words.write_text("".join(f'"{word}"\n' for word in WORDS), encoding="ascii")
    bounds = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={DEADLINE}", "-rss_limit_mb=2048"]
    bounds += [f"-dict={words}", f"-artifact_prefix={work}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *bounds, str(corpus), str(SEEDS)], one)
    atheris.Fuzz()


def check(raw: bytes, parsed: "Parsed") -> None:
    """The promises: the id is that of the outermost header block unless the mail says it was unwrapped; every text has
    UTF-8 and no NUL; documents are whole, their names plain and unique."""
    from apptrack_ingest.parse.headers import header_block, peek

    outer = peek(header_block(raw, HEADERS) or b"").applicant_id
    if parsed.unwrapped != (parsed.inner is not None) or outer != (None if parsed.unwrapped else parsed.applicant_id):
        raise Broken("the id is not the outer mail's")
    for text in texts_of(parsed):
        text.encode()
        if "\0" in text:
            raise Broken("a NUL in a text")
    for document in parsed.documents:
        check_document(document)
    if len({document.name.casefold() for document in parsed.documents}) < len(parsed.documents):
        raise Broken("two documents of one name")


def texts_of(value: object) -> Iterator[str]:
    """Every text in what was read, at whatever depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from texts_of(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from texts_of(getattr(value, field.name))


def check_document(document: "Document") -> None:
    name = document.name
    if not name or len(name.encode()) > 150 or name != name.strip(" .") or any(c in '<>:"|?*\\/' for c in name):
        raise Broken("a name that is not safe")
    if document.size != len(document.content) or document.sha256 != hashlib.sha256(document.content).hexdigest():
        raise Broken("a document that is not whole")


def supervised(seconds: int, corpus: Path | None) -> int:
    """Fuzz in a process of its own, so that what libFuzzer prints can be read through; the status to end with."""
    work = Path(tempfile.mkdtemp(prefix="apptrack-fuzz-"))
    corpus = corpus or work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, str(seconds), "--corpus", str(corpus), "--inside", str(work)]
    with (work / "log").open("wb") as log:
        status = subprocess.run(command, stderr=log, check=False, timeout=seconds + GRACE).returncode  # noqa: S603
    lines = (work / "log").read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line for line in lines if line.startswith("stat::number_of")] if status == 0 else lines[-60:]
    print("\n".join(told))
    print(f"fuzz: nothing found in {seconds} seconds" if status == 0 else f"fuzz: a finding, kept in {work}")
    return status


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("seconds", type=int, nargs="?", default=60)
    options.add_argument("--corpus", type=Path)
    options.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.inside:
        fuzz(given.seconds, given.corpus, given.inside)
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: NOT RUN, atheris has no wheel for this Python or system")
        sys.exit(bool(os.environ.get("NO_SKIPS")))
    sys.exit(supervised(given.seconds, given.corpus))


if __name__ == "__main__":
    main()
