"""swaks, the postmaster's test client, at listeners of every kind: TLS, AUTH, client certificates, PROXY, pipelining."""

import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from end_to_end.doors import PASSWORD, USER
from end_to_end.programs import program
from end_to_end.sending import RECIPIENT, SENDER

from apptrack_ingest.testing import an_email

WRONG_RECIPIENT, NOT_CONNECTED, TLS_FAILED, AUTH_FAILED, MAIL_REFUSED = 24, 21, 29, 28, 23
"""Its exit codes (swaks(1), EXIT CODES)."""


@dataclass(frozen=True)
class Said:
    """The end of a run, the lines that the server said (in TLS too), and those of swaks."""

    code: int
    server: tuple[str, ...]
    all: str

    @property
    def queued(self) -> str:
        """The answer that says under which number the mail is ours."""
        [line] = [line for line in self.server if line.startswith("250 2.6.0")]
        return line


@pytest.fixture
def swaks(doors, tmp_path: Path):
    """Sends an application by way of one of the doors; further words are swaks's own."""
    command = program("swaks")
    mail = tmp_path / "mail.eml"

    def send(door: str, *words: str, applicant: int = 1, to: str = RECIPIENT) -> Said:
        mail.write_bytes(an_email(applicant))
        where = ["--server", "127.0.0.1", "--port", str(doors.ports[door]), "--helo", "client.example"]
        what = ["--from", SENDER, "--to", to, "--data", f"@{mail}", "--timeout", "10"]
        run = subprocess.run(
            [command, *where, *what, *words],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        server = tuple(re.findall(r"^<[-~*][-~*]? +(.*)$", run.stdout, re.MULTILINE))
        return Said(run.returncode, server, run.stdout + run.stderr)

    return send


def trusted(doors, said: Said):
    """Whether the mail that this run brought is believed, and why."""
    assert said.code == 0, said.all
    row = doors.deployment.application_of(said.queued)
    story = doors.deployment.story(row.application_id)
    return story.trusted, story.trust_note


def refused(said: Said, code: int, reply: str) -> None:
    assert said.code == code, said.all
    assert reply in said.server, said.all
    assert not any(line.startswith("250 2.6.0") for line in said.server), said.all


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("door", "words", "protocol"),
    [
        ("starttls", [], "ESMTP"),
        ("starttls", ["--tls"], "ESMTPS"),
        ("required", ["--tls"], "ESMTPS"),
        ("implicit", ["--tls-on-connect"], "ESMTPS"),
        ("off", [], "ESMTP"),
        ("starttls", ["--protocol", "SMTP"], "SMTP"),
    ],
)
def test_mail_comes_in_by_every_door(doors, swaks, door, words, protocol, certificates):
    checked = ["--tls-verify", "--tls-ca-path", str(certificates.file)] if "S" in protocol[-1:] else []
    said = swaks(door, *words, *checked, to="x@other.example")
    assert trusted(doors, said) == (True, "peer 127.0.0.1 is in the network 127.0.0.0/8")
    row = doors.deployment.application_of(said.queued)
    [protocol_told] = re.findall(r"with (\S+) id", received_header(doors.deployment, row.message_id))
    assert protocol_told == protocol


def received_header(deployment, message_id: int) -> str:
    """Our own trace header of a message in the spool."""
    raw = deployment.raw(message_id)
    return raw[: raw.index(b"\r\n", raw.index(b" by "))].decode()


def test_where_tls_is_demanded_nothing_goes_without(swaks):
    refused(swaks("required"), MAIL_REFUSED, "530 5.7.0 Must issue a STARTTLS command first")


def test_without_a_certificate_in_use_tls_is_not_offered(swaks):
    said = swaks("off", "--tls")
    assert said.code == TLS_FAILED and not any("STARTTLS" in line for line in said.server)


# --- AUTH ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_auth(doors, swaks, wait, mechanism):
    login = ["--auth", mechanism, "--auth-user", USER]
    said = swaks("users", "--tls", *login, "--auth-password", PASSWORD)
    assert trusted(doors, said) == (True, f"logged in as the listed user {USER}")
    before = doors.deployment.metric('apptrack_smtp_limited_total{limit="credentials"}')
    wrong = swaks("users", "--tls", *login, "--auth-password", PASSWORD.upper())
    refused(wrong, AUTH_FAILED, "535 5.7.8 Authentication credentials invalid")
    nobody = swaks("implicit", "--tls-on-connect", "--auth", mechanism, "--auth-user", "x", "--auth-password", PASSWORD)
    refused(nobody, AUTH_FAILED, "535 5.7.8 Authentication credentials invalid")
    wait(lambda: doors.deployment.metric('apptrack_smtp_limited_total{limit="credentials"}') == before + 2)


def test_who_logged_in_but_is_not_listed_is_not_believed(doors, swaks):
    said = swaks("users", "--tls", "--auth", "PLAIN", "--auth-user", "guest", "--auth-password", PASSWORD)
    assert trusted(doors, said) == (False, "the user that logged in is not listed")


def test_auth_is_not_offered_in_the_clear_and_demanded_where_it_is(swaks):
    said = swaks("starttls", "--auth", "PLAIN", "--auth-user", USER, "--auth-password", PASSWORD)
    assert said.code == AUTH_FAILED and not any("AUTH" in line for line in said.server), said.all
    refused(swaks("users", "--tls"), MAIL_REFUSED, "530 5.7.0 Authentication required")


# --- client certificates ---------------------------------------------------------------------------------------------


def shown(identity) -> list[str]:
    return ["--tls-cert", str(identity.certificate), "--tls-key", str(identity.key)]


@pytest.mark.parametrize(("door", "how"), [("certificates", "--tls"), ("implicit-certificates", "--tls-on-connect")])
def test_client_certificates(doors, swaks, door, how):
    for identity, name in ((doors.fingerprinted, "mx1"), (doors.named, "mx2")):
        said = swaks(door, how, *shown(identity))
        assert trusted(doors, said) == (True, f"client certificate of {name}.acme.example")
    unlisted = swaks(door, how, *shown(doors.unlisted))
    assert trusted(doors, unlisted) == (False, "the client certificate of mx3.acme.example is not listed")
    assert trusted(doors, swaks(door, how)) == (False, "no rule matches peer 127.0.0.1")


def test_where_nobody_asks_a_certificate_says_nothing(doors, swaks):
    said = swaks("starttls", "--tls", *shown(doors.named))
    assert trusted(doors, said) == (False, "no rule matches peer 127.0.0.1")


# --- the PROXY protocol ----------------------------------------------------------------------------------------------


def proxy(version: str, source: str) -> list[str]:
    family = "TCP4" if version == "1" else "AF_INET"
    words = [
        "--proxy-version",
        version,
        "--proxy-family",
        family,
        "--proxy-source",
        source,
        "--proxy-source-port",
        "5000",
    ]
    words += ["--proxy-dest", "127.0.0.1", "--proxy-dest-port", "25"]
    return words if version == "1" else [*words, "--proxy-protocol", "STREAM", "--proxy-command", "PROXY"]


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(("door", "how"), [("balancer", "--tls"), ("implicit-balancer", "--tls-on-connect")])
def test_a_listed_balancer_says_who_the_peer_is(doors, swaks, version, door, how):
    said = swaks(door, how, *proxy(version, "93.184.216.34"))
    assert trusted(doors, said) == (False, "no rule matches peer 93.184.216.34")
    local = swaks(door, how, *proxy(version, "127.4.5.6"), to="x@other.example")
    assert trusted(doors, local) == (True, "peer 127.4.5.6 is in the network 127.0.0.0/8")


@pytest.mark.parametrize("version", ["1", "2"])
def test_another_balancer_is_turned_away(swaks, version):
    said = swaks("other-balancer", *proxy(version, "127.0.0.1"))
    # It is cut off at once, so that swaks may be ended by a signal where it writes its QUIT.
    assert said.code in (NOT_CONNECTED, -signal.SIGPIPE), said.all
    refused(said, said.code, "421 4.7.0 Only by way of the load balancer, with a PROXY header")


# --- the dialogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [[], ["--tls"]])
def test_pipelining(doors, swaks, tls):
    said = swaks("starttls", "--pipeline", *tls, to=f"{RECIPIENT},x@other.example")
    assert said.code == 0 and "PIPELINING" in " ".join(said.server)
    assert said.all.rindex("> DATA") < said.all.index("250 2.1.0 Sender OK"), "nothing was pipelined"
    message = int(said.queued.rpartition(" ")[2])
    rows = [row for row in doors.deployment.applications() if row.message_id == message]
    assert {row.account for row in rows} == {"acme", "other"}


def test_a_recipient_that_is_not_ours(doors, swaks):
    refused(swaks("starttls", to="x@elsewhere.example"), WRONG_RECIPIENT, "550 5.1.1 No such recipient here")
    said = swaks("starttls", "--pipeline", to=f"x@elsewhere.example,{RECIPIENT}")
    assert said.code == 0 and "550 5.1.1 No such recipient here" in said.server
    assert doors.deployment.application_of(said.queued).account == "acme"
