"""Who is believed, from the connection to the ATS: strangers, signatures, tokens, and rules changed while mail comes in."""

import base64
import functools
import json
import re
import smtplib
import ssl
from datetime import UTC, datetime, timedelta

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from end_to_end.name_server import name_server
from end_to_end.sending import ByBalancer, answer
from names import Trouble
from ports import free_ports

from apptrack_ingest.receive.users import make_hash
from apptrack_ingest.testing import an_email

OUTSIDE = "93.184.216.34"
"""Somebody on the Internet, as a load balancer would name him."""
FIRST_END = datetime(2090, 1, 1, tzinfo=UTC)
KEY_NAME = "k{}._domainkey.idibu.example"
TRUST = '[trust]\nnetworks = ["127.0.0.0/8"]\n'
ACME = '[accounts.acme.trust]\ndkim = ["idibu.example"]\n'


@functools.cache
def key() -> tuple[bytes, bytes]:
    """A private key as PEM, and the DNS record for it."""
    made = rsa.generate_private_key(65537, 2048)
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = made.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def signed(mail: bytes, selector: str) -> bytes:
    """The mail with a signature of idibu.example's over all its X-iTrackID headers."""
    names = {line.partition(b":")[0].lower() for line in mail.split(b"\r\n\r\n")[0].split(b"\r\n")}
    covered = [b"from", b"to", b"subject", *sorted(name for name in names if name.startswith(b"x-itrackid"))]
    return dkim.sign(mail, selector.encode(), b"idibu.example", key()[0], include_headers=covered) + mail


@pytest.fixture(scope="module")
def names():
    zone = {KEY_NAME.format(1): {"TXT": [key()[1]]}, "idibu.example": {"TXT": [b"v=spf1 ip4:198.51.100.0/24 -all"]}}
    with name_server(zone) as server:
        yield server


@pytest.fixture(scope="module")
def identity(certificates):
    """Our own certificate, which one of the tests renews."""
    return certificates.issue("localhost", not_after=FIRST_END)


@pytest.fixture(scope="module")
def usual(names) -> str:
    """The settings that the tests begin and end with."""
    return f'[dns]\nnameservers = ["{names.address}"]\ntimeout = 2\n{TRUST}{ACME}'


@pytest.fixture(scope="module")
def shared(deploy, usual, identity):
    """Listens on one port for this machine and on another behind a load balancer."""
    plain, proxied = free_ports(2)
    deployment = deploy(
        port=plain,
        smtp=identity.settings,
        listeners=[{"port": plain}, {"port": proxied, "proxy_from": ["127.0.0.1/32"]}],
        extra=usual,
    )
    deployment.up(deployment.start())
    return deployment


@pytest.fixture
def change(shared, usual):
    """Takes up other settings by SIGHUP, and the usual ones again when the test is over."""

    def change(extra: str) -> None:
        shared.extra = extra
        shared.reload()

    yield change
    if shared.extra != usual:
        change(usual)


def from_outside(shared, mail: bytes, *recipients: str, peer: str = OUTSIDE) -> str:
    with ByBalancer(peer, shared.ports[1]) as session:
        return answer(session, mail, *recipients)


def verdicts(shared, rule: str) -> float:
    return shared.metric(f'apptrack_trust_verdicts_total{{account="acme",rule="{rule}"}}')


# --- strangers -------------------------------------------------------------------------------------------------------


def test_a_strangers_mail_is_held_explained_and_released(shared, tmp_path, wait):
    before = verdicts(shared, "none")
    row = shared.settled(from_outside(shared, an_email(1)))
    assert (row.state, row.reason, row.applicant_id, row.account) == ("held", "untrusted", None, "acme")
    assert verdicts(shared, "none") == before + 1
    shown = json.loads(shared.cli("show", str(row.application_id), "--json").stdout)
    assert (shown["trusted"], shown["peer"]) == (False, OUTSIDE)
    assert shown["trust_note"] == "no DKIM signature of a listed domain"
    assert shown["evidence"] == ["SPF for mail from idibu.example: fail"]
    saved = tmp_path / "mail.eml"
    shared.cli("export", str(row.application_id), "-o", str(saved))
    explained = shared.cli("explain", str(saved), "--sender", "bounces@idibu.example", "--json", check=False)
    assert explained.exit_code != 0
    told = json.loads(explained.stdout)
    assert (told["peer"], told["applicant_id"]) == (OUTSIDE, 1)
    assert told["found_out"] == shown["evidence"]
    assert told["verdicts"] == [{"account": "acme", "trusted": False, "rule": "none", "why": shown["trust_note"]}]
    assert told["applications"] == [{"account": "acme", "next": "held as untrusted"}]
    shared.cli("release", str(row.application_id), "--reason", "known to me")
    wait(lambda: 1 in shared.candidates(), why=shared.log.read_text)
    assert shared.settled(f"250 2.6.0 Queued as {row.message_id}").applicant_id == 1


def test_the_same_mail_from_here_is_believed(shared):
    with smtplib.SMTP("127.0.0.1", shared.port, timeout=30) as session:
        row = shared.settled(answer(session, an_email(2)))
    assert (row.state, row.applicant_id) == ("delivered", 2)


def test_strangers_are_refused_or_kept_few_where_the_settings_say_so(shared, usual, change):
    change(f'{usual}[untrusted]\nanswer = "refuse"\n')
    assert from_outside(shared, an_email(3)) == "550 5.7.1 Mail for this recipient is not taken from you"
    assert from_outside(shared, signed(an_email(4), "k1")).startswith("250 2.6.0")
    assert from_outside(shared, an_email(None), "postmaster@acme.example").startswith("250 2.6.0")
    limited = 'apptrack_smtp_limited_total{limit="untrusted-rate"}'
    before = shared.metric(limited)
    change(f"{usual}[untrusted]\nper_minute = 1\n")
    assert from_outside(shared, an_email(5), peer="93.184.217.1").startswith("250 2.6.0")
    refusal = "421 4.7.0 Too many mails from your network, try again later"
    assert from_outside(shared, an_email(5), peer="93.184.217.200") == refusal
    assert from_outside(shared, an_email(6), peer="93.184.218.1").startswith("250 2.6.0")
    assert from_outside(shared, signed(an_email(7), "k1"), peer="93.184.217.1").startswith("250 2.6.0")
    assert shared.metric(limited) == before + 1


# --- signatures ------------------------------------------------------------------------------------------------------


def test_a_signed_mail_is_believed_wherever_it_comes_from(shared, wait):
    before = verdicts(shared, "dkim")
    row = shared.settled(from_outside(shared, signed(an_email(10), "k1")))
    assert (row.state, row.applicant_id) == ("delivered", 10)
    assert shared.story(row.application_id).trust_note == "DKIM d=idibu.example s=k1 passes and covers the ids"
    assert verdicts(shared, "dkim") == before + 1
    changed = signed(an_email(11), "k1").replace(b"X-iTrackID: 11", b"X-iTrackID: 12")
    forged = shared.settled(from_outside(shared, changed))
    assert (forged.state, forged.reason, forged.applicant_id) == ("held", "untrusted", None)
    assert "signed headers were changed" in shared.story(forged.application_id).trust_note
    added = shared.settled(from_outside(shared, b"X-iTrackID-Extra: 1\r\n" + signed(an_email(13), "k1")))
    assert (added.state, added.applicant_id) == ("held", None)
    assert "does not cover X-iTrackID-Extra" in shared.story(added.application_id).trust_note


def test_while_dns_is_away_a_signed_mail_is_put_off(shared, names, wait):
    mail, undecided = signed(an_email(20), "k2"), verdicts(shared, "undecided")
    for trouble in (Trouble.SERVFAIL, Trouble.SILENT):
        names.zone[KEY_NAME.format(2)] = trouble
        refusal = from_outside(shared, mail)
        assert refusal == "451 4.4.3 A DNS answer needed to know the sender did not come, try again later"
    wait(lambda: verdicts(shared, "undecided") == undecided + 2)
    assert shared.applications(applicant_id=20) == []
    names.zone[KEY_NAME.format(2)] = {"TXT": [key()[1]]}
    row = shared.settled(from_outside(shared, mail))
    assert (row.state, row.applicant_id) == ("delivered", 20)


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_is_believed_and_kept_out_of_sight(shared, usual, change):
    printed = shared.cli("address", "new", "--account", "acme").stdout
    [address] = set(re.findall(r"applications\+\S+@acme\.example", printed))
    token = address.partition("@")[0].partition("+")[2]
    [setting] = re.findall(r"^tokens = \[.*?^\]", printed, re.DOTALL | re.MULTILINE)
    assert token not in setting
    change(f"{usual}{setting}\n")
    for number, recipient in ((31, address), (32, address.replace(token, token.upper()))):
        row = shared.settled(from_outside(shared, an_email(number), recipient))
        assert (row.state, row.applicant_id) == ("delivered", number)
        story = shared.story(row.application_id)
        assert (story.trust_note, story.recipients) == (
            "the recipient carries a valid token",
            ("applications+***@acme.example",),
        )
        assert b" for <applications+***@acme.example>;" in shared.raw(row.message_id)[:400]
    guess = shared.settled(from_outside(shared, an_email(33), f"applications+{'a' * len(token)}@acme.example"))
    assert (guess.state, guess.reason) == ("held", "untrusted")
    assert verdicts(shared, "token") == 2
    seen = shared.log.read_text() + shared.cli("show", str(row.application_id), "--json").stdout
    assert token not in seen.lower() and token not in shared.page("/metrics")[1]
    for file in (file for file in shared.data.rglob("*") if file.is_file()):
        assert token.encode() not in file.read_bytes().lower(), file.name


# --- changes while mail comes in -------------------------------------------------------------------------------------


def test_a_reload_changes_rules_users_and_limits_and_loses_no_connection(shared, usual, change, certificates):
    user = f'[smtp.users]\nlate = "{make_hash("a password")}"\n'
    with ByBalancer(OUTSIDE, shared.ports[1]) as stays:
        held = shared.settled(answer(stays, an_email(40)))
        assert held.state == "held"
        code, _ = stays.docmd("MAIL", "FROM:<a@idibu.example>")
        assert code == 250
        change(
            f"{usual.replace(TRUST, '')}{user}"
            '[trust]\nnetworks = ["127.0.0.0/8", "93.184.216.0/24"]\nusers = ["late"]\n[limits]\nheader_block = 2000\n'
        )
        assert stays.docmd("RCPT", "TO:<applications@acme.example>")[0] == 250
        code, text = stays.data(an_email(41))
        assert code == 250
        row = shared.settled(f"250 {text.decode()}")
        assert (row.state, row.applicant_id) == ("delivered", 41)
    with smtplib.SMTP("localhost", shared.port, timeout=30) as session:
        session.starttls(context=certificates.trusting())
        session.login("late", "a password")
        padded = an_email(42, headers={"X-Padding": "x " * 1000})
        assert answer(session, padded) == "552 5.3.4 Header section too big"
        assert answer(session, an_email(43)).startswith("250 2.6.0")


def test_a_renewed_certificate_is_taken_up(shared, identity, certificates, wait):
    expiry = "apptrack_tls_certificate_expiry_timestamp_seconds"
    assert shared.metric(expiry) == FIRST_END.timestamp()
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=90)
    renewed = certificates.issue("localhost", not_after=ends)
    with smtplib.SMTP("localhost", shared.port, timeout=30) as stays:
        stays.starttls(context=certificates.trusting())
        renewed.key.replace(identity.key)
        renewed.certificate.replace(identity.certificate)
        wait(lambda: served_until(shared.port, certificates) == ends.timestamp(), why=shared.log.read_text)
        wait(lambda: shared.metric(expiry) == ends.timestamp())
        assert answer(stays, an_email(50)).startswith("250 2.6.0")


def served_until(port: int, certificates) -> float:
    """When the certificate ends that a new connection is shown."""
    with smtplib.SMTP("localhost", port, timeout=30) as session:
        session.starttls(context=certificates.trusting())
        return float(ssl.cert_time_to_seconds(session.sock.getpeercert()["notAfter"]))


def test_without_room_we_are_not_ready_and_recover_by_ourselves(shared, usual, change, wait):
    assert shared.page("/readyz")[0] == 200
    change(f'{usual}[limits]\nfree_space = "1000TB"\n')
    _, text = wait(lambda: (page := shared.page("/readyz"))[0] == 503 and page)
    assert json.loads(text)["failed"] == ["no-room-disk-bytes"]
    limited = 'apptrack_smtp_limited_total{limit="disk-bytes"}'
    before = shared.metric(limited)
    with smtplib.SMTP("127.0.0.1", shared.port, timeout=30) as session:
        assert answer(session, an_email(60)) == "452 4.3.1 No room at the moment, try again later"
        wait(lambda: shared.metric(limited) == before + 1)
        change(usual)
        wait(lambda: shared.page("/readyz")[0] == 200)
        assert answer(session, an_email(60)).startswith("250 2.6.0")
