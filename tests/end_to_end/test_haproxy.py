"""HAProxy in front: the real peer is known by the PROXY protocol, and the balancer's health checks do no harm."""

import contextlib
import json
import smtplib

import pytest
from end_to_end.haproxy import HAProxy
from end_to_end.sending import ByBalancer, answer
from ports import free_port, free_ports

from apptrack_ingest.testing import an_email

FAR = "127.9.8.7"
"""Whence the client comes: an address of this machine that is not the balancer's."""

GREETED = 'apptrack_smtp_replies_total{code="220"}'
UNGREETED = "apptrack_smtp_ungreeted_total"
"""A check that only connects is gone at once: whether it is greeted before is a matter of microseconds."""

TURNED_AWAY = 'apptrack_smtp_limited_total{limit="proxy"}'


@pytest.fixture(scope="module")
def behind(deploy):
    plain, proxied = free_ports(2)
    deployment = deploy(
        port=plain,
        listeners=[{"port": plain}, {"port": proxied, "proxy_from": ["127.0.0.1/32"]}],
        # The balancer checks more often here than it would anywhere, and to us it is a stranger.
        extra='[trust]\nnetworks = ["127.9.8.0/24"]\n[limits]\nnew_connections_per_minute = 100000\n',
    )
    deployment.up(deployment.start())
    return deployment


def client(port: int) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port, "client.example", timeout=30, source_address=(FAR, 0))


@pytest.mark.parametrize("how", ["send-proxy-v2", "send-proxy"])
def test_the_real_peer_is_seen_and_judged(behind, wait, tmp_path, how):
    port = free_port()
    number = {"send-proxy-v2": 2, "send-proxy": 1}[how]
    with HAProxy(tmp_path, port, behind.ports[1], how) as balancer:
        wait(lambda: greets(port), why=lambda: balancer.said)
        with client(port) as session:
            row = behind.application_of(answer(session, an_email(number)))
    shown = json.loads(behind.cli("show", str(row.application_id), "--json").stdout)
    assert shown["peer"] == FAR and shown["trusted"] is True
    assert shown["trust_note"] == f"peer {FAR} is in the network 127.9.8.0/24"
    wait(lambda: number in behind.candidates(), why=behind.log.read_text)


def test_a_balancers_own_address_is_believed_no_more_than_any_other(behind):
    """Where the header names nobody the peer is the balancer, which no rule lists."""
    with ByBalancer(None, behind.ports[1]) as session:
        row = behind.settled(answer(session, an_email(3)))
    assert (row.state, row.reason, row.applicant_id) == ("held", "untrusted", None)


@pytest.mark.parametrize(
    ("check", "how"),
    [("", "send-proxy-v2 check inter 50"), ("option smtpchk EHLO balancer.example", "send-proxy-v2 check inter 50")],
    ids=["connects", "says-EHLO"],
)
def test_health_checks_do_no_harm(behind, wait, tmp_path, check, how):
    port = free_port()
    before, turned_away, troubles = checked(behind), behind.metric(TURNED_AWAY), behind.troubles()
    with HAProxy(tmp_path, port, behind.ports[1], how, check) as balancer:
        wait(lambda: checked(behind) >= before + 20, why=lambda: balancer.said)
        assert greets(port)
        assert "DOWN" not in balancer.said
        # Ended in the middle of a check, it would be one that sent no header.
        assert behind.troubles() == troubles
        assert behind.metric(TURNED_AWAY) == turned_away
    wait(lambda: behind.metric("apptrack_smtp_sessions") == 0)


def test_who_comes_round_the_balancer_is_turned_away(behind, wait):
    """From an address that no balancer has."""
    before = behind.metric(TURNED_AWAY)
    with pytest.raises(smtplib.SMTPConnectError, match="Only by way of the load balancer") as refusal:
        client(behind.ports[1])
    assert (refusal.value.smtp_code, refusal.value.smtp_error[:5]) == (421, b"4.7.0")
    wait(lambda: behind.metric(TURNED_AWAY) == before + 1)
    wait(lambda: behind.metric("apptrack_smtp_sessions") == 0)


def checked(behind) -> float:
    return behind.metric(GREETED) + behind.metric(UNGREETED)


def greets(port: int) -> bool:
    with contextlib.suppress(OSError, smtplib.SMTPException), client(port):
        return True
    return False
