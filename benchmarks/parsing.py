"""Prints what reading a mail costs as ratios: CPU against the standard library's parser plus decoding, memory against the
mail's size.

Run `python benchmarks/parsing.py`. CPU is the least of twenty runs, of mails of 5, 60 and 500 KB with a text, an HTML and a
PDF part; bounds (issue "Every mail read right"): 1.5 at 500 KB, and 4 for the memory of 25 MB, the mail itself included.
"""

import email
import os
import time
import tracemalloc
from base64 import encodebytes
from collections.abc import Callable

from apptrack_ingest.parse.mime import parse

HEAD = (
    b"X-iTrackID: 40809300\r\nX-iTrackID-ClientReference: ATS-1\r\nFrom: Jane Doe <jane.doe@example.org>\r\n"
    b'Subject: =?utf-8?q?Bewerbung_f=C3=BCr?= Koch\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    b'--b\r\nContent-Type: multipart/alternative; boundary="c"\r\n\r\n--c\r\nContent-Type: text/plain; charset=utf-8\r\n'
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"Dear Sir, =C3=BC please find my CV attached.=20\r\n" * 30
)
HTML = (
    b"--c\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    + b"<p>Dear Sir, please find my CV.</p>\r\n" * 30
    + b"--c--\r\n"
)
PDF = b'--b\r\nContent-Type: application/pdf; name="cv.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
MAIL = b"--b\r\nContent-Type: message/rfc822\r\n\r\n"


def document(size: int) -> bytes:
    return PDF + encodebytes(b"%PDF-1.4\n" + os.urandom(size * 3 // 4)).replace(b"\n", b"\r\n")


def mail(size: int) -> bytes:
    return HEAD + HTML + document(size) + b"--b--\r\n"


def forwarded(size: int) -> bytes:
    return HEAD + HTML + MAIL + mail(size).replace(b'"b"', b'"i"').replace(b"--b", b"--i") + b"--b--\r\n"


def standard_library(raw: bytes) -> list[object]:
    message = email.message_from_bytes(raw)
    return [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]


def cpu(work: Callable[[], object], times: int = 20) -> float:
    def once() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return min(once() for _ in range(times))


def memory(raw: bytes) -> float:
    """The most memory taken while reading, what came out and the mail itself included, in sizes of the mail."""
    tracemalloc.start()
    kept = parse(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / len(raw) + 1 if kept else 0.0


if __name__ == "__main__":
    for size in (5_000, 60_000, 500_000):
        raw = mail(size)
        ours, theirs = cpu(lambda raw=raw: parse(raw)), cpu(lambda raw=raw: standard_library(raw))  # type: ignore[misc]
        print(f"{len(raw):9,} bytes: {ours * 1000:6.2f} ms, {ours / theirs:.2f} times the standard library's CPU")
    attached = forwarded(25_000_000)
    without_id = attached[attached.index(b"From") :]
    for name, raw in (
        ("a mail", mail(25_000_000)),
        ("a mail with it attached", attached),
        ("the same, unwrapped", without_id),
    ):
        print(f"{len(raw):9,} bytes, {name}: {memory(raw):.2f} times its size in memory")
