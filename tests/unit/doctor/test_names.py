"""Where a domain's mail is led, asked of a real name server on loopback."""

import pytest
from names import NameServer, Trouble

from apptrack_ingest.doctor.finding import Level
from apptrack_ingest.doctor.names import checks, domains
from apptrack_ingest.settings import Settings

HOST = "mx.acme.example"
AWAY = {"A": ["192.0.2.7"]}
HERE = {"A": ["127.0.0.1"]}


@pytest.fixture
async def server():
    async with NameServer() as running:
        yield running


async def look(server, zone, **account):
    server.zone = zone
    accounts = {"acme": {"recipients": ["applications@acme.example"], **account}}
    found = Settings(accounts=accounts, smtp={"hostname": HOST}, dns={"nameservers": [server.address], "timeout": 0.3})
    [finding] = [finding for check in checks(found) for finding in await check.findings()]
    assert finding.check == "MX of acme.example"
    return finding


@pytest.mark.parametrize(
    ("zone", "level"),
    [
        ({"acme.example": {"MX": ["10 mx.acme.example."]}, HOST: AWAY}, Level.OK),  # our name, behind a NAT
        ({"acme.example": {"MX": ["10 in.acme.example."]}, "in.acme.example": HERE}, Level.OK),  # our address
        ({"acme.example": {"MX": ["10 a.x.example.", f"20 {HOST}."]}, "a.x.example": AWAY, HOST: AWAY}, Level.OK),
        ({"acme.example": {**HERE}}, Level.OK),  # no MX: the domain's own address
        ({"acme.example": {"MX": ["10 relay.example."]}, "relay.example": AWAY}, Level.WARN),
        ({"acme.example": {"MX": ["10 gone.example."]}}, Level.FAIL),
        ({"acme.example": {"MX": ["0 ."]}}, Level.FAIL),  # a null MX
        ({}, Level.FAIL),
        ({"acme.example": Trouble.SERVFAIL}, Level.FAIL),
        ({"acme.example": Trouble.SILENT}, Level.FAIL),
    ],
)
async def test_where_the_mail_of_a_domain_goes(server, zone, level):
    finding = await look(server, zone)
    assert finding.level is level, finding
    assert bool(finding.advice) == (level is not Level.OK)


def test_the_domains_are_those_of_all_recipients_or_of_one_account():
    found = Settings(
        recipients=["shared.example"],
        accounts={
            "acme": {"client_id": 1, "recipients": ["a@Acme.example", "b@acme.example"]},
            "blue": {"client_id": 2, "recipients": ["blue.example"]},
        },
    )
    assert domains(found, None) == ["acme.example", "blue.example", "shared.example"]
    assert domains(found, "blue") == ["blue.example", "shared.example"]
