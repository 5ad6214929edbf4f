"""Plain answers: told apart from all others, and read as h11 reads them."""

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apptrack_ingest.idibu import plain

OK = b"HTTP/1.1 200 OK\r\n"
NAMES = [
    "Content-Length",
    "content-length",
    "Connection",
    "Transfer-Encoding",
    "Content-Type",
    "Date",
    "X y",
    "",
    "Upgrade",
]
VALUES = [
    "2",
    " 2 ",
    "0",
    "02",
    "2, 2",
    "-2",
    "",
    "close",
    "Keep-Alive",
    "chunked",
    "identity",
    "a\tb ",
    "\x00",
    "é",
    "a\nb",
]
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=5)), max_size=4)
LINES = [
    "HTTP/1.1 200 OK",
    "HTTP/1.1 404 ",
    "HTTP/1.1 500",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No",
    "HTTP/1.1 100 On",
    "HTTP/1.1 2000 ",
]


def by_h11(received: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes, bytes]:
    """Status, headers, body and what is left, of an answer to a GET; the connection can be used again."""
    protocol = h11.Connection(h11.CLIENT)
    protocol.send(h11.Request(method="GET", target="/", headers=[("Host", "idibu.example")]))
    protocol.send(h11.EndOfMessage())
    protocol.receive_data(received)
    head, body = protocol.next_event(), b""
    assert isinstance(head, h11.Response)
    while isinstance(event := protocol.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert protocol.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
    return head.status_code, head.headers.raw_items(), body, protocol.trailing_data[0]


@given(st.sampled_from(LINES), FIELDS, st.sampled_from([":", ": ", " :", ":\t", ""]), st.sampled_from(["\r\n", "\n"]))
@example("HTTP/1.1 200 OK", [("Content-Length", "2"), ("Content-Type", " text/xml ")], ":", "\r\n")
def test_what_is_plain_h11_reads_alike(line: str, fields: list[tuple[str, str]], colon: str, end: str) -> None:
    head = end.join([line, *(name + colon + value for name, value in fields), "", ""]).encode()
    is_as_h11_says(head + b"okHTTP/1.1 200 OK\r\n")


CHUNK = [
    "0\r\n\r\n",
    "2\r\nok\r\n",
    "02\r\nok\r\n",
    "A\r\n0123456789\r\n",
    "0\r\nX: y\r\n\r\n",
    "2;x=y\r\nok\r\n",
    "1\r\nok\r\n",
]
CHUNKS = st.lists(
    st.sampled_from([*CHUNK, "", "\r\n", "g\r\n", "-1\r\n", "2 \r\nok\r\n", "2\nok\n", "f" * 9]), max_size=5
)


@given(CHUNKS)
@example(["2\r\nok\r\n", "0\r\n\r\n"])
def test_chunks_that_are_plain_h11_reads_alike(chunks: list[str]) -> None:
    is_as_h11_says(OK + b"Transfer-Encoding: chunked\r\n\r\n" + "".join(chunks).encode())


def is_as_h11_says(received: bytes) -> None:
    try:
        found = plain.read(received)
    except plain.Unfinished:
        return
    if found is not None:
        expected = (found.status, list(found.headers), found.body, received[found.end :])
        assert expected == by_h11(received)


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("kept", [b"", b"Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n"])
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 2\r\n\r\n", b"ok"),
        (b"Content-Length: 0\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n"),
    ],
)
def test_the_usual_answer_is_plain_as_soon_as_it_is_whole(head: bytes, body: bytes, kept: bytes) -> None:
    head = OK + b"Server: Apache\r\n" + kept + head
    for cut in range(len(body)):
        with pytest.raises(plain.Unfinished):
            plain.read(head + body[:cut])
    found = plain.read(bytearray(head + body))
    assert found is not None
    assert (found.status, found.body, found.end) == (200, b"ok" if b"o" in body else b"", len(head + body))
    assert dict(found.headers)[b"Server"] == b"Apache"


@pytest.mark.parametrize(
    "received",
    [
        OK,
        OK + b"\r\n",
        OK + b"Content-Length: 2\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        OK + b"Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\nok",
        OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nok",
        OK + b"Content-Length: 2\r\nX: a\r\n b\r\n\r\nok",
        OK + b"Content-Length: %d\r\n\r\nok" % plain.LARGEST,
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"%x\r\n" % plain.LARGEST,
        CHUNKED + b"2;x=y\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"0\r\nX: y\r\n\r\n",
        CHUNKED + b"1\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"-1\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_everything_else_is_not(received: bytes) -> None:
    assert plain.read(received) is None
