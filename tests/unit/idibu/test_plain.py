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
    received = head + b"okHTTP/1.1 200 OK\r\n"
    found = plain.head(received)
    if found is not None:
        status, headers, body, left = by_h11(received)
        assert (found.status, list(found.headers)) == (status, headers)
        assert (received[found.begin : found.end], received[found.end :]) == (body, left)


def test_the_usual_answer_is_plain() -> None:
    head = (
        OK
        + b"Date: Tue, 14 Nov 2023 22:13:20 GMT\r\nServer: Apache\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\n"
    )
    found = plain.head(head + b"ok")
    assert found is not None
    assert (found.status, found.begin, found.end) == (200, len(head), len(head) + 2)
    assert dict(found.headers)[b"Server"] == b"Apache"


@pytest.mark.parametrize(
    "head",
    [
        OK,
        OK + b"\r\n",
        OK + b"Content-Length: 2\r\n",
        OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\n",
        OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n",
        OK + b"Content-Length: 2\r\nX: a\r\n b\r\n\r\n",
        OK + b"Content-Length: %d\r\n\r\n" % (plain.LARGEST + 1),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_everything_else_is_not(head: bytes) -> None:
    assert plain.head(head + b"ok") is None
