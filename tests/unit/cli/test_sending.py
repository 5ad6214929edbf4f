"""`send`: real SMTP to a real server, line ends, envelope, replies, failures, where to."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from ports import free_port

from apptrack_ingest.cli.samples import samples
from apptrack_ingest.cli.sending import UNKNOWN_SENDER, running, sender_of, with_crlf
from apptrack_ingest.parse.mime import parse
from apptrack_ingest.testing import an_email

from .conftest import HOSTILE, House


class Server:
    """Takes what it is sent and remembers it; refuses what the test says."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.options: list[list[str]] = []
        self.connections = 0
        self.refused_recipient = ""
        self.answers: dict[int, str] = {}

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        self.options.append(options)
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        if address == self.refused_recipient:
            return "550 5.1.1 No such recipient here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.mails.append(envelope)
        return self.answers.get(len(self.mails), f"250 2.6.0 Queued as {len(self.mails)}")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def port(server: Server) -> Iterator[int]:
    controller = Controller(server, hostname="127.0.0.1", port=free_port(), server_hostname="mx.example")
    controller.start()
    yield int(controller.port)
    controller.stop()


def eml(directory: Path, name: str, raw: bytes) -> Path:
    path = directory / name
    path.write_bytes(raw)
    return path


def test_files_arrive_as_they_are_with_crlf(house: House, server: Server, port: int, tmp_path: Path) -> None:
    dotted = b"From: Jane <jane@example.com>\nSubject: x\n\n.\n..dots\n8-bit \xe9\n"
    first = an_email(1)
    files = [eml(tmp_path, "one.eml", first), eml(tmp_path, "two.eml", dotted)]
    told = house.run("send", *files, "--port", port, "--host", "127.0.0.1").stdout
    assert f"2 of 2 mails taken by 127.0.0.1:{port}" in told
    assert "2 x 250 2.6.0 Queued as ..." in told
    one, two = server.mails
    assert one.content == first
    assert two.content == dotted.replace(b"\n", b"\r\n")
    assert (one.mail_from, two.mail_from) == ("jane.doe@example.com", "jane@example.com")
    assert one.rcpt_tos == ["applications@localhost"]
    assert server.connections == 1
    assert "BODY=8BITMIME" in server.options[1] and f"SIZE={len(one.content)}" in server.options[0]


def test_envelope_as_asked_for(house: House, server: Server, port: int, tmp_path: Path) -> None:
    file = eml(tmp_path, "one.eml", an_email(1))
    words = ("--to", "applications@acme.example", "--from", "bounces@idibu.example")
    house.run("send", file, "--port", port, *words)
    assert server.mails[0].mail_from == "bounces@idibu.example"
    assert server.mails[0].rcpt_tos == ["applications@acme.example"]


def test_samples_are_varied_and_new_each(house: House, server: Server, port: int) -> None:
    assert "12 of 12 mails taken" in house.run("send", "--sample", 12, "--port", port).stdout
    parsed = [parse(mail.content) for mail in server.mails if isinstance(mail.content, bytes)]
    assert len({mail.applicant_id for mail in parsed} - {None}) == 12
    assert len({mail.candidate.email for mail in parsed}) > 4
    assert len({len(mail.documents) for mail in parsed}) >= 3


def test_samples_survive_the_way(house: House) -> None:
    for name, raw in samples(60, 1):
        assert raw == with_crlf(raw), name
        assert parse(raw).id_problem is None


def test_refusals_are_listed_and_the_rest_is_sent(house: House, server: Server, port: int, tmp_path: Path) -> None:
    server.answers = {1: "554 5.6.0 Not \x1b[31m this", 2: "421 4.3.2 Shutting down"}
    files = [eml(tmp_path, f"{n}.eml", an_email(n)) for n in (1, 2, 3)]
    result = house.run("send", *files, "--port", port, code=1)
    assert "1 of 3 mails taken" in result.stdout
    assert f"{files[0]}: 554 5.6.0 Not" in result.stderr and "\x1b" not in result.stderr
    assert f"{files[1]}: 421 4.3.2 Shutting down" in result.stderr


def test_an_unknown_recipient_fails_all(house: House, server: Server, port: int) -> None:
    server.refused_recipient = "applications@localhost"
    told = house.json("send", "--sample", 2, "--port", port, code=1)
    assert (told["sent"], told["failed"]) == (0, 2)
    assert told["mails"][0] == {
        "name": "sample 1",
        "ok": False,
        "code": 550,
        "reply": "5.1.1 No such recipient here",
    }


def test_no_server_is_said_plainly(house: House, tmp_path: Path) -> None:
    file = eml(tmp_path, "one.eml", an_email(1))
    told = house.run("send", file, "--host", "127.0.0.1", "--port", free_port(), code=1).stderr
    assert "no connection to 127.0.0.1:" in told and "is `apptrack-ingest serve` running?" in told


@pytest.mark.parametrize("words", [("--from", "a\r\nb@c"), ("--to", "a b@c"), ("--to", "<a@c>")])
def test_what_is_no_address_is_not_sent_to(house: House, words: tuple[str, ...]) -> None:
    assert "write an address alone" in house.run("send", "--sample", 1, *words, code=2).stderr


def test_an_empty_sender_makes_a_bounce(house: House, server: Server, port: int) -> None:
    house.run("send", "--sample", 1, "--port", port, "--from", "")
    assert server.mails[0].mail_from in ("", "<>", None)


def test_files_or_samples(house: House, tmp_path: Path) -> None:
    house.run("send", code=2)
    house.run("send", "--sample", 1, eml(tmp_path, "one.eml", b""), code=2)
    house.run("send", tmp_path / "none.eml", code=2)


# --- where to --------------------------------------------------------------------------------------------------------


def status(house: House, pid: int, host: str, port: int) -> None:
    house.data.mkdir(exist_ok=True)
    (house.data / "serve.json").write_text(json.dumps({"smtp": [[host, port]], "web": ["127.0.0.1", 1], "pid": pid}))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_running_serve_is_found(house: House, server: Server, port: int, host: str) -> None:
    status(house, os.getpid(), host, port)
    assert f"1 of 1 mails taken by 127.0.0.1:{port}" in house.run("send", "--sample", 1).stdout


def test_a_serve_that_was_killed_is_not_believed(house: House) -> None:
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    status(house, process, "127.0.0.1", 1)
    assert running(house.data) is None
    (house.data / "serve.json").write_text("[")
    assert running(house.data) is None


def test_a_port_chosen_at_the_start_must_be_given(house: House) -> None:
    house.config.write_text(house.config.read_text() + "\n[smtp]\nport = 0\n")
    assert "give --port" in house.run("send", "--sample", 1, code=1).stderr


# --- the envelope's sender -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        (b"From: Jane Doe <jane@example.com>", "jane@example.com"),
        (b"from:\r\n =?utf-8?q?Jos=C3=A9?= <jose@example.com>", "jose@example.com"),
        (b"From: jos\xe9@example.com", UNKNOWN_SENDER),
        (b"From: nobody", UNKNOWN_SENDER),
        (b"From: <a b@example.com>", UNKNOWN_SENDER),
        (b"Subject: none", UNKNOWN_SENDER),
        (b"From: x@y\r\nFrom: z@y", "x@y"),
        (b"From: " + HOSTILE.encode("utf-8", "surrogatepass"), UNKNOWN_SENDER),
    ],
)
def test_the_sender_of_a_mail(header: bytes, sender: str) -> None:
    assert sender_of(header + b"\r\n\r\ntext") == sender


@pytest.mark.parametrize(
    ("raw", "sent"),
    [(b"a\nb\r\nc", b"a\r\nb\r\nc"), (b"a\n\nb\n", b"a\r\n\r\nb\r\n"), (b"a\rb\r\n", b"a\rb\r\n"), (b"", b"")],
)
def test_line_ends(raw: bytes, sent: bytes) -> None:
    assert with_crlf(raw) == sent
