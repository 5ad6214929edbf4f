"""Postfix relays to us: it delivers with and without TLS and logged in, keeps what we put off, returns what we refuse."""

import re

import pytest
from end_to_end.postfix import Postfix
from ports import free_port

from apptrack_ingest.model import State
from apptrack_ingest.receive.users import make_hash
from apptrack_ingest.testing import a_document, an_email

PASSWORD = "0ld,sailor{s}' words"


@pytest.fixture(scope="module")
def deployment(deploy, certificates):
    """acme believes loopback; beta believes whoever logs in as `relay`, and nobody else."""
    deployment = deploy(
        smtp=certificates.issue("localhost").settings + 'max_size = "1MB"',
        recipients=[f"applications@{name}.example" for name in ("clear", "opportunistic", "verified", "many", "acme")],
        extra=f'[smtp.users]\nrelay = "{make_hash(PASSWORD)}"\n[trust]\nnetworks = []\n'
        '[accounts.acme.trust]\nnetworks = ["127.0.0.0/8"]\n[accounts.beta.trust]\nusers = ["relay"]\n',
    )
    deployment.account("beta", recipients=["beta.example"])
    deployment.up(deployment.start())
    return deployment


@pytest.fixture(scope="module")
def postfix(deployment, certificates):
    port = free_port()
    to_us = f"[localhost]:{deployment.port}"
    secrets = deployment.directory / "sasl_passwords"
    secrets.write_text(f"{to_us} relay:{PASSWORD}\n")
    transports = {
        "clear": {"smtp_tls_security_level": "none"},
        "opportunistic": {"smtp_tls_security_level": "may", "smtp_tls_loglevel": "1"},
        "verified": {
            "smtp_tls_security_level": "secure",
            "smtp_tls_secure_cert_match": "nexthop",
            "smtp_tls_loglevel": "1",
        },
        "login": {
            "smtp_tls_security_level": "encrypt",
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_password_maps": f"texthash:{secrets}",
            "smtp_sasl_security_options": "noanonymous",
        },
        "many": {
            "verbose": "yes",
            "smtp_tls_security_level": "none",
            "smtp_connection_cache_destinations": "static:yes",
        },
    }
    routes = {f"{name}.example": f"{name}:{to_us}" for name in transports if name != "login"}
    routes |= {
        "acme.example": f"clear:{to_us}",
        "beta.example": f"login:{to_us}",
        "guest@beta.example": f"clear:{to_us}",
    }
    with Postfix(port, certificates.file, transports, routes) as postfix:
        yield postfix


def our_trace(deployment, applicant_id: int) -> str:
    """Our own Received header of the only mail of this applicant."""
    [row] = deployment.applications(applicant_id=applicant_id)
    raw = deployment.raw(row.message_id)
    return raw[: raw.index(b"\r\n", raw.index(b" by mx.test"))].decode()


@pytest.mark.parametrize(
    ("way", "protocol", "told"),
    [
        ("clear", "ESMTP", ""),
        ("opportunistic", "ESMTPS", "Trusted TLS connection established to localhost"),
        ("verified", "ESMTPS", "Verified TLS connection established to localhost"),
    ],
)
def test_it_relays(deployment, postfix, wait, way, protocol, told):
    number = 100 + len(way)
    postfix.submit((an_email(number), f"applications@{way}.example"))
    wait(lambda: number in deployment.candidates(), why=lambda: postfix.log)
    header = our_trace(deployment, number)
    assert header.startswith("Received: from relay.test.example ([127.0.0.1])\r\n")
    assert re.search(r"with (\w+) id", header)[1] == protocol
    wait(lambda: told in postfix.log, why=lambda: postfix.log)
    wait(lambda: postfix.waiting() == {}, why=lambda: postfix.log)


def test_it_logs_in_and_is_believed_for_that(deployment, postfix, wait):
    postfix.submit((an_email(201), "applications@beta.example"), (an_email(202), "guest@beta.example"))
    wait(lambda: len(deployment.applications(account="beta")) == 2, why=lambda: postfix.log)
    wait(lambda: not deployment.applications(states=(State.RECEIVED,)), why=deployment.log.read_text)
    stories = {
        story.recipients[0]: story
        for row in deployment.applications(account="beta")
        for story in [deployment.story(row.application_id)]
    }
    known, unknown = stories["applications@beta.example"], stories["guest@beta.example"]
    assert (known.trusted, known.trust_note) == (True, "logged in as the listed user relay")
    assert (known.summary.applicant_id, known.summary.state) == (201, State.DELIVERED)
    assert " with ESMTPSA id " in our_trace(deployment, 201)
    assert (unknown.trusted, unknown.summary.state, unknown.summary.applicant_id) == (False, State.HELD, None)


def test_many_mails_over_one_connection_pipelined(deployment, postfix, wait):
    numbers = range(300, 306)
    for number in numbers:
        # One after the other: the connection is reused from delivery to delivery.
        postfix.submit((an_email(number), "applications@many.example"))
        wait(lambda number=number: deployment.applications(applicant_id=number), why=lambda: postfix.log)
        wait(lambda: "applications@many.example" not in postfix.waiting(), why=lambda: postfix.log)
    log = wait(lambda: (log := postfix.log).count("conn_use=") >= 5 and log, why=lambda: postfix.log)
    assert "conn_use=6" in log
    assert "Using ESMTP PIPELINING" in log
    wait(lambda: set(numbers) <= set(deployment.candidates()), why=deployment.log.read_text)


def test_no_room_is_waited_for(deployment, postfix, wait):
    was = deployment.extra
    deployment.extra += '[limits]\nfree_space = "1000TB"\n'
    deployment.reload()
    postfix.submit((an_email(401), "applications@acme.example"))
    told = wait(lambda: postfix.waiting().get("applications@acme.example"), why=lambda: postfix.log)
    assert "452 4.3.1 No room at the moment, try again later" in told

    def tried_again() -> bool:
        postfix.flush()  # which passes over what it has not laid aside yet
        return len(postfix.deliveries("applications@acme.example")) >= 2

    wait(tried_again, why=lambda: postfix.log)
    assert deployment.applications(applicant_id=401) == []
    deployment.extra = was
    deployment.reload()

    def arrived() -> bool:
        postfix.flush()
        return 401 in deployment.candidates()

    wait(arrived, why=lambda: postfix.log)
    wait(lambda: postfix.waiting() == {})
    *before, last = (
        line.partition("status=")[2].split()[0] for line in postfix.deliveries("applications@acme.example")
    )
    assert set(before) == {"deferred"} and last == "sent"


def test_while_we_are_down_it_keeps_the_mail(deployment, postfix, wait):
    deployment.stop(deployment.processes[-1])
    postfix.submit((an_email(501), "applications@verified.example"))
    told = wait(lambda: postfix.waiting().get("applications@verified.example"), why=lambda: postfix.log)
    assert "Connection refused" in told
    deployment.up(deployment.start())
    postfix.flush()
    wait(lambda: 501 in deployment.candidates(), why=lambda: postfix.log)
    wait(lambda: postfix.waiting() == {})


def test_what_we_refuse_goes_back_at_once(deployment, postfix, wait):
    postfix.submit((an_email(601), "nobody@acme.example"))
    wait(lambda: "No such recipient here" in postfix.returned(), why=lambda: postfix.log)
    assert "status=bounced" in "".join(postfix.deliveries("nobody@acme.example"))
    assert "550 5.1.1" in postfix.returned()
    wait(lambda: postfix.waiting() == {})
    postfix.flush()
    assert len(postfix.deliveries("nobody@acme.example")) == 1


def test_what_is_too_big_goes_back_before_it_is_sent(deployment, postfix, wait):
    asked_for = 'apptrack_smtp_replies_total{code="354"}'
    before = deployment.metric(asked_for)
    mail = an_email(701, documents=[a_document(content=b"%PDF-1.4 " + bytes(1_000_000))])
    postfix.submit((mail, "applications@opportunistic.example"))
    wait(lambda: "exceeds size limit 1000000 of server" in postfix.log, why=lambda: postfix.log)
    wait(lambda: "exceeds size limit" in postfix.returned().replace("\n   ", ""), why=lambda: postfix.returned())
    wait(lambda: postfix.waiting() == {})
    assert deployment.metric(asked_for) == before
    assert deployment.applications(applicant_id=701) == []
