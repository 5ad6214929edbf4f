"""The intake's settings: networks, rules of trust, listeners and limits, and every mistake that no single value shows."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from apptrack_ingest.errors import ConfigError, Problem
from apptrack_ingest.settings import Settings, load, token_parts

DIGEST = "ab" * 32
ACME = '[accounts.acme]\nrecipients = ["cv@acme.example"]\n'
CERTIFICATE = 'tls_certificate = "/x/chain.pem"\ntls_key = "/x/key.pem"\n'


def configured(tmp_path: Path, toml: str) -> Settings:
    path = tmp_path / "settings.toml"
    path.write_text(toml, encoding="utf-8")
    return load(path, {})


def mistakes(tmp_path: Path, toml: str) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as refused:
        configured(tmp_path, toml)
    return {problem.key: problem for problem in refused.value.problems}


def test_loopback_alone_is_believed_by_default() -> None:
    assert [str(network) for network in Settings().trust.networks] == ["127.0.0.0/8", "::1/128"]
    assert Settings().untrusted.answer == "hold"


def test_rules_from_the_file_for_all_and_for_one(tmp_path: Path) -> None:
    settings = configured(
        tmp_path,
        f"""
        [smtp]
        {CERTIFICATE}
        [smtp.users]
        relay = "scrypt$..."
        [trust]
        networks = ["192.0.2.7", "2001:db8::/32"]
        dkim = ["IDIBU.com"]
        arc = ["google.com"]
        {ACME}
        untrusted = "refuse"
        [accounts.acme.trust]
        names = [".idibu.com", "*.mail.idibu.com", "MX1.idibu.com"]
        users = ["relay"]
        tokens = ["{DIGEST}", "{DIGEST} until 2027-01-31"]
        """,
    )
    assert settings.trust.networks == (ip_network("192.0.2.7/32"), ip_network("2001:db8::/32"))
    assert (settings.trust.dkim, settings.trust.arc) == (("idibu.com",), ("google.com",))
    own = settings.accounts["acme"].trust
    assert own.names == (".idibu.com", ".mail.idibu.com", "mx1.idibu.com")
    assert own.networks == ()
    assert settings.accounts["acme"].untrusted == "refuse"


def test_the_environment_can_say_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTRACK_TRUST__NETWORKS", "10.1.0.0/16, ::1")
    monkeypatch.setenv("APPTRACK_ACCOUNTS__ACME__RECIPIENTS", "cv@acme.example")
    monkeypatch.setenv("APPTRACK_ACCOUNTS__ACME__TRUST__DKIM", "idibu.com,idibu.co.uk")
    listeners = [{"host": "127.0.0.1", "port": 25}, {"host": "::1", "port": 465, "tls": "off"}]
    monkeypatch.setenv("APPTRACK_SMTP__LISTENERS", json.dumps(listeners))
    settings = load(None)
    assert settings.trust.networks == (ip_network("10.1.0.0/16"), ip_network("::1/128"))
    assert settings.accounts["acme"].trust.dkim == ("idibu.com", "idibu.co.uk")
    assert [(one.host, one.port, one.tls) for one in settings.smtp.all_listeners] == [
        ("127.0.0.1", 25, "starttls"),
        ("::1", 465, "off"),
    ]


def test_a_user_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APPTRACK_SMTP__USERS__RELAY", "scrypt$1")
    settings = configured(tmp_path, f"[smtp]\n{CERTIFICATE}\n{ACME}")
    assert settings.smtp.users["relay"].get_secret_value() == "scrypt$1"


@pytest.mark.parametrize(
    ("written", "digest", "until"),
    [
        (DIGEST, DIGEST, None),
        (f" {DIGEST} until 2027-01-31 ", DIGEST, 1801440000.0),  # 2027-02-01 00:00 UTC: the whole last day counts
    ],
)
def test_a_token_is_a_digest_and_perhaps_its_last_day(written: str, digest: str, until: float | None) -> None:
    assert token_parts(written) == (digest, until)


def test_without_listeners_host_port_and_tls_are_the_only_one(tmp_path: Path) -> None:
    settings = configured(tmp_path, f'[smtp]\nport = 25\ntls = "implicit"\n{CERTIFICATE}\n{ACME}')
    (only,) = settings.smtp.all_listeners
    assert (only.host, only.port, only.tls) == ("127.0.0.1", 25, "implicit")


FINGERPRINT = ":".join(["AB"] * 32)


def test_a_certificate_is_a_fingerprint_however_it_is_written_or_a_name(tmp_path: Path) -> None:
    listeners = '[[smtp.listeners]]\nclient_ca = "/x/ca.pem"\n'
    trust = f'[trust]\nclient_certificates = ["sha256:{FINGERPRINT}", "Mail.Acme.example", "*"]\n'
    settings = configured(tmp_path, f"[smtp]\n{CERTIFICATE}{listeners}{trust}{ACME}")
    assert settings.trust.client_certificates == ("ab" * 32, "mail.acme.example", "*")


@pytest.mark.parametrize(
    ("toml", "key", "advice"),
    [
        ('[trust]\nnetworks = ["192.0.2.1/24"]', "trust.networks.0", "host bits set"),
        ('[trust]\nnetworks = ["everybody"]', "trust.networks.0", "write an address or a CIDR"),
        ('[trust]\nnames = ["idibu"]', "trust.names.0", "no domain"),
        ('[trust]\ndkim = ["*.idibu.com"]', "trust.dkim.0", "no domain"),
        ('[trust]\ntokens = ["secret-word"]', "trust.tokens.0", "apptrack-ingest address new"),
        (f'[trust]\ntokens = ["{DIGEST} until tomorrow"]', "trust.tokens.0", "until 2027-01-31"),
        ('[trust]\nclient_certificates = ["sha256:abc"]', "trust.client_certificates.0", "64 hex digits"),
        ('[trust]\narc = ["google.com"]', "trust", "arc needs dkim"),
        ("[trust]\nrelay_strips_headers = true", "trust", "needs relays or relay_names"),
        ('[trust]\nrelays = ["192.0.2.0/24"]', "trust.relays", "lets nothing be believed"),
        (f'{ACME}[accounts.acme.trust]\nrelay_names = [".x.example"]', "accounts.acme.trust.relays", "alone"),
        ('[trust]\nusers = ["relay"]', "trust.users", "no such user"),
        ('[smtp.users]\nrelay = "x"', "smtp.users", "under TLS alone"),
        ('[trust]\nclient_certificates = ["*"]', "trust.client_certificates", "client_ca"),
        ('[smtp]\ntls = "required"', "smtp.tls", "tls_certificate"),
        ('[[smtp.listeners]]\ntls = "implicit"', "smtp.listeners.0.tls", "tls_certificate"),
        ('[[smtp.listeners]]\nclient_ca = "/x"', "smtp.listeners.0.client_ca", "tls_certificate"),
        ("[[smtp.listeners]]\nauth_required = true", "smtp.listeners.0.auth_required", "smtp.users"),
        (
            f'[smtp]\n{CERTIFICATE}[[smtp.listeners]]\ntls = "off"\nclient_ca = "/x"',
            "smtp.listeners.0.tls",
            "need TLS",
        ),
        ("[smtp]\nport = 25\n[[smtp.listeners]]\nport = 26", "smtp.listeners", "leave them out"),
        ("[[smtp.listeners]]\n[[smtp.listeners]]", "smtp.listeners.1", "listens at the same place"),
        ('[[smtp.listeners]]\nport = 26\n[[smtp.listeners]]\nhots = "::1"', "smtp.listeners.1.hots", "known are host"),
        ('[[smtp.listeners]]\nhost = "0.0.0.0"', "smtp.listeners", "on loopback only"),
        ('[dns]\nnameservers = ["ns.example"]', "dns.nameservers.0", "no address of a name server"),
        ('[dns]\nnameservers = ["192.0.2.53:99999"]', "dns.nameservers.0", "up to 65535"),
        ("[limits]\nconnections = 0", "limits.connections", "greater than or equal to 1"),
        ("[limits]\nstrangers_share = 1.5", "limits.strangers_share", "less than or equal to 1"),
        ('[untrusted]\nanswer = "ignore"', "untrusted.answer", "'hold' or 'refuse'"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(tmp_path: Path, toml: str, key: str, advice: str) -> None:
    found = mistakes(tmp_path, toml)
    assert key in found, found
    assert advice in str(found[key])


def test_a_password_hash_and_a_token_are_not_echoed(tmp_path: Path) -> None:
    found = mistakes(tmp_path, f'[trust]\ntokens = ["{DIGEST} for ever"]\n[smtp]\nusers = {{ relay = 12345678 }}')
    text = "".join(map(str, found.values()))
    assert "for ever" not in text
    assert "12345678" not in text


def test_relays_are_worth_something_with_what_is_listed_for_all(tmp_path: Path) -> None:
    toml = f'[trust]\ndkim = ["idibu.com"]\n{ACME}[accounts.acme.trust]\nrelays = ["192.0.2.0/24"]'
    assert configured(tmp_path, toml).accounts["acme"].trust.relays
