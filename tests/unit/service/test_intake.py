"""From settings to the intake's parts: what a rule, a limit or a file becomes, and what is wrong with it in words."""

import resource
import socket
from pathlib import Path

import pytest
import trustme

from apptrack_ingest.errors import ConfigError
from apptrack_ingest.receive.users import make_hash
from apptrack_ingest.service import intake
from apptrack_ingest.settings import Account, Limits, Listener, Rules, Settings, Smtp, Trust, UntrustedMail
from apptrack_ingest.trust import Token, digest_of

TOKEN = digest_of("abc")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    issued = trustme.CA().issue_cert("mx.test.example")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    return tmp_path


def with_tls(directory: Path, **smtp: object) -> Settings:
    files = {"tls_certificate": directory / "chain.pem", "tls_key": directory / "key.pem"}
    return Settings(data_dir=directory / "data", smtp=Smtp.model_validate({**files, **smtp}))


def test_an_accounts_rules_stand_beside_those_for_all() -> None:
    found = Settings(
        trust=Trust(dkim=("idibu.com",)),
        accounts={
            "acme": Account(recipients=("cv@acme.example",), trust=Rules(tokens=(f"{TOKEN} until 2027-01-31",))),
            "beta": Account(recipients=("cv@beta.example",), untrusted="refuse"),
        },
    )
    trust = intake.trust_of(found)
    own, common = trust.rules_for("acme")
    assert own.tokens == (Token(TOKEN, 1801440000.0),)
    assert common.dkim == {"idibu.com"}
    assert trust.rules_for(None) == (common,)
    assert trust.rules_of(("acme", None)) == {"acme": (own, common), None: (common,)}
    assert trust.rules_of((None,)) == trust.rules_of((None,)) == {None: (common,)}
    assert trust.refusing == {"beta"}
    assert trust.is_token("ABC".lower())
    assert not trust.is_token("abd")


def test_several_intakes_together_keep_to_the_limits() -> None:
    found = Settings(
        limits=Limits(
            connections=1000,
            connections_per_network=50,
            new_connections_per_minute=2,
            messages_per_minute=300,
            bytes_in_flight=64_000_000,
        ),
        untrusted=UntrustedMail(per_minute=31),
    )
    caps = intake.caps_of(found, of=3)
    assert (caps.connections, caps.connections_per_network, caps.messages_per_minute) == (333, 16, 100)
    assert (caps.untrusted_per_minute, caps.wrong_logins_per_minute) == (10, 3)
    assert caps.new_connections_per_minute == 1, "none would be shut for all"
    assert intake.caps_of(found).connections == 1000
    assert intake.budget_of(found) == (64_000_000, 0.8, 0.2), "of each, for it is a process's memory"


def test_an_address_that_is_taken_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"smtp.host, smtp.port.*127.0.0.1:{port}.*cannot be listened on"):
            intake.shared_sockets(Settings(smtp=Smtp(port=port)), {})


def test_refusing_for_all_leaves_an_account_that_holds() -> None:
    accounts = {
        "acme": Account(recipients=("a@x.example",), untrusted="hold"),
        "beta": Account(recipients=("b@x.example",)),
    }
    trust = intake.trust_of(Settings(untrusted=UntrustedMail(answer="refuse"), accounts=accounts))
    assert trust.refusing == {"beta", None}


@pytest.mark.parametrize(
    ("peer", "listed"),
    [
        ("127.0.0.9", True),
        ("::ffff:127.0.0.1", True),
        ("fe80::1%eth0", False),
        ("10.1.2.3", True),
        ("10.2.2.3", False),
        ("2001:db8::7", True),
        ("", False),
    ],
)
def test_listed_peers_are_those_in_anybodys_networks_and_relays(peer: str, listed: bool) -> None:
    found = Settings(
        trust=Trust.model_validate({"relays": ["10.1.0.0/16"], "relay_strips_headers": True}),
        accounts={
            "acme": Account.model_validate(
                {"recipients": ["a@x.example"], "trust": {"networks": ["2001:db8::/64"]}},
            )
        },
    )
    assert intake.trust_of(found).lists(peer) is listed


def test_a_load_balancer_is_no_stranger_and_believed_by_nobody() -> None:
    listener = Listener.model_validate({"proxy_from": ["10.9.0.1"]})
    trust = intake.trust_of(Settings(smtp=Smtp(listeners=(listener,))))
    assert trust.lists("10.9.0.1")
    assert not any("10.9.0.1" in str(network) for rules in trust.rules_for(None) for network in rules.networks)


def test_what_can_be_used_is_no_problem(certificate: Path) -> None:
    users = {"relay": make_hash("open sesame", n=4096, p=1)}
    assert intake.problems_of(with_tls(certificate, users=users)) == []


def test_a_certificate_that_cannot_be_used_is_named(certificate: Path) -> None:
    (certificate / "key.pem").write_bytes(b"half")
    (problem,) = intake.problems_of(with_tls(certificate))
    assert problem.key == "smtp.tls_certificate"
    assert "chain.pem" in str(problem)


def test_a_client_ca_that_cannot_be_used_is_named_with_its_listener(certificate: Path) -> None:
    listeners = [Listener(port=0), Listener(port=0, client_ca=certificate / "none.pem")]
    (problem,) = intake.problems_of(with_tls(certificate, listeners=listeners))
    assert problem.key == "smtp.listeners.1.client_ca"
    assert "none.pem" in str(problem)


def test_a_hash_that_is_none_is_named_by_its_user_alone(certificate: Path) -> None:
    (problem,) = intake.problems_of(with_tls(certificate, users={"relay": "my-password"}))
    assert "relay" in str(problem)
    assert "user new" in str(problem)
    assert "my-password" not in str(problem)


def test_there_are_descriptors_for_all_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        intake.room_for_connections(Settings(limits=Limits(connections=300)))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300 + intake.DESCRIPTORS_BESIDE
        intake.room_for_connections(Settings(limits=Limits(connections=10)))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300 + intake.DESCRIPTORS_BESIDE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
