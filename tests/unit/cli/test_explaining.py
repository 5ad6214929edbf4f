"""`explain`: reply, account, verdict, handler and why, for a saved mail, without taking it."""

import json
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner

from apptrack_ingest.cli import main
from apptrack_ingest.model import HeldReason
from apptrack_ingest.testing import an_email

from .conftest import House

TOKEN = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    file = tmp_path / "mail.eml"
    file.write_bytes(an_email(4711))
    return file


@pytest.fixture
def certificates(tmp_path: Path) -> str:
    """Settings with a user and two client certificates that are trusted."""
    authority = trustme.CA()
    issued = authority.issue_cert("mx.test.example")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return f"""
[smtp]
tls_certificate = "{tmp_path}/chain.pem"
tls_key = "{tmp_path}/key.pem"
users = {{ relay = "scrypt$4096$8$1$c2FsdHNhbHQ=$MDEyMzQ1Njc4OWFiY2RlZg==" }}
[[smtp.listeners]]
client_ca = "{tmp_path}/ca.pem"
[accounts.acme.trust]
users = ["relay"]
client_certificates = ["{"ab" * 32}", "relay.idibu.example"]
"""


def explained(house: House, file: Path, *words: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(main, ["explain", str(file), "--config", str(house.config), "--json", *words])
    assert result.output.startswith("{"), result.output
    return result.exit_code, json.loads(result.output)


def test_a_trusted_mail_goes_to_its_handler(house: House, mail: Path) -> None:
    code, told = explained(house, mail, "--peer", "127.0.0.1", "--recipient", "applications@acme.example")
    assert code == 0
    assert told["reply"].startswith("250 2.6.0")
    assert told["applicant_id"] == 4711
    (verdict,) = told["verdicts"]
    assert (verdict["account"], verdict["trusted"], verdict["rule"]) == ("acme", True, "network")
    assert told["applications"] == [{"account": "acme", "next": "handed to the handler folder"}]


def test_an_untrusted_one_is_held_and_the_reason_told(house: House, mail: Path) -> None:
    code, told = explained(house, mail, "--peer", "203.0.113.9", "--recipient", "applications@acme.example")
    assert code == 1
    assert told["reply"].startswith("250 2.6.0")
    assert told["verdicts"][0]["rule"] == "none"
    assert "203.0.113.9" in told["verdicts"][0]["why"]
    assert told["applications"][0]["next"] == "held as untrusted"


def test_by_setting_it_is_refused(house: House, mail: Path) -> None:
    house.config.write_text(house.config.read_text() + '\n[untrusted]\nanswer = "refuse"\n')
    code, told = explained(house, mail, "--peer", "203.0.113.9", "--recipient", "applications@acme.example")
    assert (code, told["reply"][:9], told["applications"]) == (1, "550 5.7.1", [])


def test_a_token_in_the_recipient_counts(house: House, mail: Path) -> None:
    from apptrack_ingest.trust import digest_of

    house.config.write_text(house.config.read_text() + f'\n[accounts.acme.trust]\ntokens = ["{digest_of(TOKEN)}"]\n')
    recipient = f"Applications+{TOKEN.upper()}@ACME.example"
    code, told = explained(house, mail, "--peer", "203.0.113.9", "--recipient", recipient)
    assert (code, told["verdicts"][0]["rule"]) == (0, "token")
    code, told = explained(house, mail, "--peer", "203.0.113.9", "--recipient", "applications+wrong@acme.example")
    assert (code, told["verdicts"][0]["rule"]) == (1, "none")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--certificate", "sha256:" + "AB:" * 31 + "AB"), "certificate"),
        (("--certificate", "Relay.idibu.example"), "certificate"),
        (("--certificate", "other.idibu.example"), "none"),
        (("--user", "relay"), "user"),
    ],
)
def test_a_login_and_a_certificate_count(
    house: House, mail: Path, words: tuple[str, ...], rule: str, certificates: str
) -> None:
    house.config.write_text(house.config.read_text() + certificates)
    _, told = explained(house, mail, "--peer", "203.0.113.9", "--recipient", "applications@acme.example", *words)
    assert told["verdicts"][0]["rule"] == rule


def test_a_stranger_as_recipient_is_refused_at_once(house: House, mail: Path) -> None:
    code, told = explained(house, mail, "--peer", "127.0.0.1", "--recipient", "somebody@else.example")
    assert (code, told["reply"][:9], told["verdicts"]) == (1, "550 5.1.1", [])


def test_of_a_mail_we_received_peer_and_recipient_are_known(house: House, tmp_path: Path) -> None:
    trace = (
        b"Received: from mail.idibu.example ([IPv6:2001:db8::9])\r\n by in.acme.example with ESMTP id 0123456789abcdef\r\n"
        b" for <applications@acme.example>;\r\n Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    )
    file = tmp_path / "exported.eml"
    file.write_bytes(trace + an_email(4711))
    _, told = explained(house, file)
    assert told["peer"] == "2001:db8::9"
    assert told["recipients"][0]["recipient"] == "applications@acme.example"
    assert told["verdicts"][0]["account"] == "acme"


def test_what_the_trace_header_says_is_what_the_intake_writes(house: House) -> None:
    application_id = house.held(HeldReason.UNTRUSTED, raw=_as_received(), trusted=False)
    exported = CliRunner().invoke(main, ["export", str(application_id), "--config", str(house.config)])
    file = house.directory / "exported.eml"
    file.write_bytes(exported.stdout_bytes)
    _, told = explained(house, file)
    assert (told["peer"], told["recipients"][0]["recipient"]) == ("203.0.113.9", "applications@acme.example")


def _as_received() -> bytes:
    from apptrack_ingest.model import Envelope
    from apptrack_ingest.receive.deciding import Delivery
    from apptrack_ingest.receive.reception import trace_header
    from apptrack_ingest.trust import Connection

    envelope = Envelope("", ("applications@acme.example",), "203.0.113.9", "mx.idibu.example")
    delivery = Delivery(envelope, Connection("203.0.113.9"), "ESMTPS", an_email(4711))
    return trace_header(delivery, "in.acme.example", 0.0) + delivery.content


def test_an_attached_application_is_judged_as_the_worker_would(house: House, tmp_path: Path) -> None:
    outer = EmailMessage(policy=SMTP)
    outer["Subject"] = "FW: an application"
    outer.set_content("see attached")
    outer.add_attachment(BytesParser(policy=SMTP).parsebytes(an_email(4711)))
    file = tmp_path / "forwarded.eml"
    file.write_bytes(outer.as_bytes())
    code, told = explained(house, file, "--peer", "127.0.0.1", "--recipient", "applications@acme.example")
    assert (code, told["applicant_id"], told["attached"]["applicant_id"]) == (1, None, 4711)
    assert told["attached"]["verdicts"][0]["rule"] == "none"
    assert told["applications"][0]["next"] == "held as untrusted"


def test_bare_line_ends_are_seen(house: House, tmp_path: Path) -> None:
    house.config.write_text(house.config.read_text() + '\n[smtp]\nbare_line_ends = "refuse"\n')
    file = tmp_path / "bare.eml"
    file.write_bytes(an_email(4711) + b"one\ntwo\r\n")
    _, told = explained(house, file, "--peer", "127.0.0.1", "--recipient", "applications@acme.example")
    assert told["reply"].startswith("554 5.5.2")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--recipient", "applications@acme.example"), "--peer ADDRESS"),
        (("--peer", "nowhere", "--recipient", "applications@acme.example"), "no IP address"),
        (("--peer", "127.0.0.1"), "--recipient ADDRESS"),
    ],
)
def test_what_is_missing_is_asked_for(house: House, mail: Path, words: tuple[str, ...], says: str) -> None:
    result = CliRunner().invoke(main, ["explain", str(mail), "--config", str(house.config), *words])
    assert result.exit_code == 1
    assert says in result.output


def test_for_people_it_is_a_table(house: House, mail: Path) -> None:
    words = ["--peer", "203.0.113.9", "--recipient", "applications@acme.example", "--config", str(house.config)]
    shown = CliRunner().invoke(main, ["explain", str(mail), *words]).output
    assert "trust, acme" in shown
    assert "held as untrusted" in shown
