"""The pages on trust, ways and deployment: a start accepts their examples, and these mean what the pages say."""

import re
import shutil
import subprocess
import textwrap
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from apptrack_ingest.receive.policy import REPLIES
from apptrack_ingest.service import build, intake
from apptrack_ingest.settings import Rules, Settings, token_parts
from apptrack_ingest.trust import Certificate, Connection, Mail, TemporaryDns
from apptrack_ingest.trust.authenticator import Authenticator
from apptrack_ingest.trust.checking import Verifier

DOCS = Path(__file__).resolve().parents[3] / "docs"
TRUST = (DOCS / "trust.md").read_text(encoding="utf-8")
DEPLOYMENT = (DOCS / "deployment.md").read_text(encoding="utf-8")
ACME = '[accounts.acme]\nrecipients = ["applications@in.acme.example"]\n'


def blocks(text: str, language: str = "toml") -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(indent + body) for indent, body in found]


def examples() -> list[Any]:
    pages = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("trust", "reaching-us", "deployment")}
    return [
        pytest.param(block, id=f"{name}-{number}")
        for name, text in pages.items()
        for number, block in enumerate(blocks(text), start=1)
    ]


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    """The files that the pages name."""
    authority, place = trustme.CA(), tmp_path / "tls"
    place.mkdir()
    own = authority.issue_cert("in.acme.example")
    own.private_key_pem.write_to_path(place / "key.pem")
    for pem in own.cert_chain_pems:
        pem.write_to_path(place / "fullchain.pem", append=True)
    authority.cert_pem.write_to_path(place / "clients.pem")
    return place


def started(example: str, tls: Path) -> Settings:
    """The settings as a start finds them; an example that has no account of its own gets one."""
    text = example if "recipients" in example else f"{example}\n{ACME}"
    url, file = tls.parent / "spool-url", tls.parent / "example.toml"
    url.write_text("postgresql://ingest@127.0.0.1/spool", encoding="utf-8")
    text = text.replace("/etc/apptrack-ingest/tls", str(tls)).replace("/etc/apptrack-ingest/spool-url", str(url))
    file.write_text(text, encoding="utf-8")
    return build.checked(file)


@pytest.mark.parametrize("example", examples())
def test_a_start_accepts_the_example(example: str, tls: Path) -> None:
    found = started(example, tls)
    assert intake.trust_of(found).rules_for("acme")
    assert tomllib.loads(example).keys() <= set(Settings.model_fields)


def example_of(section: str) -> str:
    """The first example of a section of the page."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", TRUST, re.MULTILINE | re.DOTALL)
    assert text
    return blocks(text[1])[0]


class NoDns:
    """A resolver that has no answer to anything."""

    async def txt(self, name: str) -> list[bytes]:
        raise TemporaryDns

    async def addresses(self, name: str, version: int | None = None) -> list[str]:
        raise TemporaryDns

    async def pointers(self, ip: str) -> list[str]:
        raise TemporaryDns

    async def mx(self, name: str) -> list[tuple[int, str]]:
        raise TemporaryDns


async def verdict(example: str, tls: Path, connection: Connection, *words: str) -> str:
    """The rule by which acme believes a mail from this connection, to recipients with these subaddresses."""
    policy = intake.trust_of(started(example, tls))
    judge = Authenticator(NoDns(), Verifier(), clock=datetime.now(UTC).timestamp, spf=False)
    mail = Mail(connection, "kara@acme.example", {"acme": frozenset(words)}, b"X-iTrackID: 1\r\n\r\n")
    judgement = await judge.judge(mail, {"acme": policy.rules_for("acme")})
    return str(judgement.verdicts["acme"].rule)


STRANGER = Connection("203.0.113.9")


@pytest.mark.parametrize(
    ("section", "connection", "rule"),
    [
        ("Networks and names", Connection("192.0.2.7"), "network"),
        ("Networks and names", STRANGER, "none"),
        ("Relays", Connection("198.51.100.7"), "none"),
        ("Users: SMTP AUTH", Connection("203.0.113.9", user="relay"), "user"),
        ("Users: SMTP AUTH", STRANGER, "none"),
        (
            "Client certificates",
            Connection("203.0.113.9", certificate=Certificate("0" * 64, ("mail.acme.example",))),
            "certificate",
        ),
        ("Client certificates", Connection("203.0.113.9", certificate=Certificate("0" * 64, ("a.example",))), "none"),
        ("Tokens", STRANGER, "none"),
        ("DKIM", STRANGER, "none"),
        ("ARC", Connection("198.51.100.7"), "none"),
    ],
)
async def test_the_example_believes_whom_the_page_says(
    section: str, connection: Connection, rule: str, tls: Path
) -> None:
    assert await verdict(example_of(section), tls, connection) == rule


async def test_a_relay_that_strips_headers_is_believed(tls: Path) -> None:
    relay = next(block for block in blocks(TRUST) if "relay_strips_headers = true" in block)
    assert await verdict(relay, tls, Connection("198.51.100.17")) == "relay"
    assert await verdict(relay, tls, STRANGER) == "none"


async def test_a_name_is_asked_for_in_dns_and_no_answer_is_no_verdict(tls: Path) -> None:
    named = next(block for block in blocks(TRUST) if "names = " in block and "relay" not in block)
    assert await verdict(named, tls, STRANGER) == "undecided"


def test_the_rotation_keeps_the_token_of_the_example_before(tls: Path) -> None:
    first, rotated = (
        started(block, tls).accounts["acme"].trust.tokens for block in blocks(TRUST) if "tokens = [" in block
    )
    (kept, until), (new, without_end) = map(token_parts, rotated)
    assert (kept, None) == token_parts(first[0])
    assert until is not None and new != kept and without_end is None


def test_the_table_has_every_rule_and_the_page_every_key() -> None:
    rows = re.findall(r"^\| \[(`[^\]]+)\]\(#", TRUST, re.MULTILINE)
    told = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    modifiers = {"relay_strips_headers", "unsigned_ids"}
    assert told == set(Rules.model_fields) - modifiers
    assert all(f"{key} = true" in TRUST for key in modifiers)


def test_what_it_says_of_untrusted_mail_are_the_defaults() -> None:
    found = Settings().untrusted
    said = re.search(r"(\d+) MB a mail, (\d+) a minute from one network, ([\d,]+) mails and (\d+) GB in all", TRUST)
    assert said
    size, rate, messages, total = (int(number.replace(",", "")) for number in said.groups())
    assert (size * 10**6, rate, messages, total * 10**9) == (
        found.max_size,
        found.per_minute,
        found.messages,
        found.size,
    )
    assert f"`untrusted.retention` ({found.retention / 86400:.0f} days)" in TRUST


def test_the_replies_it_quotes_begin_as_ours_do() -> None:
    ours = {f"{reply.code} {reply.enhanced}" for reply in REPLIES.values()}
    quoted = re.findall(r"`([245]\d\d \d\.\d\.\d+)`", TRUST)
    assert quoted
    assert set(quoted) <= ours


def test_haproxy_accepts_its_example(tmp_path: Path) -> None:
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is missing: its example is NOT checked (Debian: apt install haproxy)")
    (example,) = blocks(DEPLOYMENT, "haproxy")
    (tmp_path / "haproxy.cfg").write_text(example, encoding="utf-8")
    done = subprocess.run(
        ["haproxy", "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_haproxys_example_fits_the_listener_beside_it() -> None:
    (haproxy,) = blocks(DEPLOYMENT, "haproxy")
    (listener,) = next(
        tomllib.loads(block)["smtp"]["listeners"] for block in blocks(DEPLOYMENT) if "proxy_from" in block
    )
    assert set(re.findall(r"^ +server \w+ [\d.]+:(\d+) send-proxy-v2", haproxy, re.MULTILINE)) == {
        str(listener["port"])
    }
    assert set(re.findall(r"check port (\d+)", haproxy)) == {str(Settings().web.port)}
    (minutes,) = set(re.findall(r"timeout (?:client|server) (\d+)m", haproxy))
    assert int(minutes) * 60 > Settings().smtp.idle_timeout
