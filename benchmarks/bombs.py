"""Reads mails of 25 MB made to be expensive, under the service's own limits, and says what each cost.

Run `python benchmarks/bombs.py [SECONDS]`: all of them, or as many as SECONDS allow. One that overruns the deadline or the
memory of the defaults (`worker.parse_deadline`, `worker.parse_memory`) is refused as it should be; the status is 1 only when
one breaks the parser, or the next honest mail is not read. The bombs that are refused at once, and small ones, are tests
(tests/unit/parse/test_bombs*.py).
"""

import asyncio
import struct
import sys
import time
from base64 import encodebytes
from collections.abc import Callable

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.parse.pool import ParserPool
from apptrack_ingest.settings.sections import Worker

SIZE = 25 * 1024 * 1024
HEAD = b"X-iTrackID: 1\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
HONEST = b"X-iTrackID: 1\r\n\r\nhello"
TNEF = b"\x78\x9f\x3e\x22\0\0"
# ContentInfo with SignedData of indefinite length up to its octets (RFC 5652).
SIGNED = bytes.fromhex("308006092a864886f70d010702a080308002010131003080" + "06092a864886f70d010701a0802480")


def part(kind: bytes, content: bytes, encoding: bytes = b"binary") -> bytes:
    return HEAD + b"--b\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n%s\r\n--b--\r\n" % (
        kind,
        encoding,
        content,
    )


def times(unit: bytes) -> bytes:
    return unit * (SIZE // len(unit))


def text(kind: bytes, unit: bytes) -> bytes:
    return b"X-iTrackID: 1\r\nContent-Type: %s\r\n\r\n%s" % (kind, times(unit))


def attribute(identity: int, data: bytes) -> bytes:
    return b"\x01" + struct.pack("<II", identity, len(data)) + data + b"\0\0"


def properties_without_end() -> bytes:
    """One property that claims four thousand million values, each of them empty."""
    claimed = struct.pack("<IHHI", 1, 0x101E, 0x1000, 0xFFFFFFFF)
    return TNEF + attribute(0x00069003, claimed + times(b"\0\0\0\0"))


def packed_texts() -> bytes:
    """Compressed RTF without a word in it, again and again, each unpacking to eight times its size."""
    packed = b"\xff" + b"\x0d\x0f" * 8
    whole = struct.pack("<II4sI", len(packed) * 7000 + 12, 1 << 21, b"LZFu", 0) + packed * 7000
    one = attribute(0x00069003, struct.pack("<IHHII", 1, 0x0102, 0x1009, 1, len(whole)) + whole + b"\0" * 3)
    return TNEF + times(one)


def mails_in_base64() -> bytes:
    mail = b"X: 1\r\n\r\n" + b"a" * (SIZE // 8)
    for _ in range(8):
        mail = b"X: 1\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encodebytes(mail)
    return mail


BOMBS: dict[str, Callable[[], bytes]] = {
    "blank lines": lambda: text(b"text/plain", b"\r\n"),
    "tags of HTML": lambda: text(b"text/html", b"<a "),
    "beginnings of meta": lambda: text(b"text/html", b"<meta "),
    "letters of two charsets": lambda: text(b"text/plain; charset=iso-8859-1", b"\xe9\xc3\xa9"),
    "UTF-7": lambda: text(b"text/plain; charset=utf-7", b"+AOk-"),
    "escapes of ISO-2022-JP": lambda: text(b"text/plain; charset=iso-2022-jp", b"\x1b$B\x1b(B"),
    "beginnings of files": lambda: text(b"text/plain", b"begin 644 a\n!\n"),
    "files in a part": lambda: part(b"application/pdf", times(b"begin 644 a\n#86)C\n"), b"x-uuencode"),
    "signs without digits": lambda: part(b"application/pdf", times(b"= "), b"quoted-printable"),
    "padding": lambda: part(b"application/pdf", times(b"="), b"base64"),
    "footers": lambda: part(b"application/pdf", times(b"\n--"), b"base64"),
    "attributes of winmail.dat": lambda: part(b"application/ms-tnef", TNEF + times(attribute(1, b""))),
    "properties of winmail.dat": lambda: part(b"application/ms-tnef", properties_without_end()),
    "packed texts of winmail.dat": lambda: part(b"application/ms-tnef", packed_texts()),
    "segments of a signed mail": lambda: part(b"application/pkcs7-mime", SIGNED + times(b"\x04\x01a")),
    "mails in mails in base64": mails_in_base64,
    "lines that begin like boundaries": lambda: HEAD + times(b"--b?\n"),
    "boundaries after the end": lambda: HEAD + b"--b\r\n\r\nx\r\n--b--\r\n" + times(b"--b\n"),
}


async def cost(pool: ParserPool, raw: bytes) -> tuple[float, str]:
    """Seconds from mail to result, transfer included, and what became of it."""
    started = time.monotonic()
    try:
        await pool.parse(raw)
        outcome = "read"
    except Unreadable as error:
        outcome = str(error)
    return time.monotonic() - started, outcome


async def run(seconds: float) -> int:
    limits = Worker()
    pool = ParserPool(deadline=limits.parse_deadline, memory_bytes=int(limits.parse_memory))
    started, broken = time.monotonic(), 0
    for number, (name, build) in enumerate(BOMBS.items()):
        if time.monotonic() - started > seconds:
            print(
                f"bombs: the other {len(BOMBS) - number} of {len(BOMBS)} are left out, {seconds:.0f} seconds are over"
            )
            break
        raw = build()
        took, outcome = await cost(pool, raw)
        broken += outcome.startswith("parser") or (await cost(pool, HONEST))[1] != "read"
        print(f"{took:6.1f} s for {len(raw) / 1e6:5.1f} MB of {name}: {outcome}", flush=True)
    await pool.close()
    return broken


if __name__ == "__main__":
    sys.exit(min(1, asyncio.run(run(float(sys.argv[1]) if len(sys.argv) > 1 else float("inf")))))
