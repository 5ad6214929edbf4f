"""Mails made to be expensive: each is read, or refused with a reason, in time that grows with its length alone."""

import time

import pytest

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.parse.mime import parse

HEAD = b"X-iTrackID: 1\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
PDF = HEAD + b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
K = 1024


def levels(count: int) -> bytes:
    return (
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(count))
        + b"\r\nx"
    )


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (HEAD + b"--b\r\n\r\nx\r\n" * 500_000, "too-many-parts"),
        (levels(2_000), "too-deep"),
        (b"A: b\r\n" * 200_000, "header-block-too-large"),
        (HEAD + b"--b\r\n\r\nbegin 644 f\r\n#86)C\r\n`\r\nend\r\n" * 2_001, "too-many-parts"),
    ],
    ids=["500,000 parts", "2,000 levels", "1 MB of headers", "files in texts"],
)
def test_beyond_the_limits(raw, code):
    started = time.process_time()
    with pytest.raises(Unreadable, match=code):
        parse(raw)
    assert time.process_time() - started < 3


BOMBS = {
    "blank lines": (b"A: b\r\n\r\n", b"\r\n"),
    "lines that begin like boundaries": (HEAD, b"--bx\n"),
    "boundaries after the end": (HEAD + b"--b\r\n\r\nx\r\n--b--\r\n", b"--b\n"),
    "lines of a boundary to be guessed": (b"Content-Type: multipart/mixed\r\n\r\n", b"--a\n"),
    "header lines of a part": (HEAD + b"--b\r\n", b"a:\n"),
    "folds of a part's header": (HEAD + b"--b\r\nA: x\r\n", b" \n"),
    "beginnings of files": (b"A: b\r\n\r\n", b"begin 644 a\n"),
    "files in the text": (b"A: b\r\n\r\n", b"begin 644 a\n#86)C\n"),
    "beginnings of signed texts": (b"A: b\r\n\r\n", b"-----BEGIN PGP SIGNED MESSAGE-----\n"),
    "mails in mails": (b"A: b\r\n", b"Content-Type: message/rfc822\r\n\r\n"),
    "stray characters in base64": (PDF, b"QUJD*\r\n"),
    "base64 in pieces": (PDF, b"QQ==\r\n"),
    "headers in base64": (PDF, b"content-a:\n"),
    "signs without digits": (PDF.replace(b"base64", b"quoted-printable"), b"= "),
    "blanks after a sign": (PDF.replace(b"base64", b"quoted-printable") + b"=", b" "),
    "quotes in a name": (HEAD + b'--b\r\nContent-Type: a/b; name="', b'a"b'),
    "continuations of a name": (HEAD + b"--b\r\nContent-Type: a/b", b";\r\n name*1=a"),
    "local headers of a zip": (HEAD + b"--b\r\nContent-Type: application/zip\r\n\r\n", b"PK\x03\x04"),
}


HEADER_BOMBS = {
    "subjects": (b"", b"Subject: x\r\n"),
    "senders": (b"", b"From: a@b.example\r\n"),
    "ids": (b"", b"X-iTrackID: 1\r\n"),
    "references in halves of letters": (b"", b"X-iTrackID-ClientReference: =?utf-8?q?=C3?=\r\n"),
    "words of two charsets": (b"X-iTrackID-Title: ", b"=?utf-8?q?=C3?= =?koi8-r?b?w7w=?= "),
    "words never ended": (b"Subject: ", b"=?a?q?"),
    "addresses": (b"From: ", b"a@b.example,"),
    "quotes": (b"From: ", b'"a'),
    "brackets": (b"Reply-To: ", b"<a(b"),
    "parameters": (b"Content-Type: a/b", b";name*1=a"),
    "folds": (b"X-iTrackID: 1", b"\r\n "),
    "no headers": (b"", b"\x00\xff\n"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_time_grows_with_the_length_alone(name):
    """Eight times the length in at most some twenty times the time; with the square it would be 64 times."""
    head, unit = BOMBS[name]
    assert cost(head, unit, 512 * K) < 20 * max(cost(head, unit, 64 * K), 0.002)


@pytest.mark.parametrize("name", HEADER_BOMBS)
def test_so_it_does_with_the_header_blocks(name):
    head, unit = HEADER_BOMBS[name]
    assert cost(head, unit, 128 * K, b"\r\n\r\nx") < 20 * max(cost(head, unit, 16 * K, b"\r\n\r\nx"), 0.002)


def cost(head: bytes, unit: bytes, size: int, end: bytes = b"") -> float:
    """CPU seconds, the least of three."""
    raw = head + unit * (size // len(unit)) + end
    times = []
    for _ in range(3):
        started = time.process_time()
        parse(raw)
        times.append(time.process_time() - started)
    return min(times)
