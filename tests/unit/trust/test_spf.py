"""SPF is told as evidence, decides nothing, and asks no more than it may."""

import asyncio
from ipaddress import ip_address, ip_network

import pytest
from names import Trouble, pointer

from apptrack_ingest.trust import DnsResolver, Rule, Rules, spf

PEER = ip_address("193.0.14.129")


@pytest.fixture
def resolver(nameserver):
    return DnsResolver([nameserver.address], timeout=0.5)


async def result(resolver, sender="jane@idibu.com", helo="mx.idibu.com", address=PEER):
    return await spf.check(resolver, address, sender, helo)


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        (b"v=spf1 ip4:193.0.14.0/24 -all", "pass"),
        (b"v=spf1 ip4:193.0.15.0/24 -all", "fail"),
        (b"v=spf1 ~all", "softfail"),
        (b"v=spf1 ?all", "neutral"),
        (b"v=spf1 a:mx.idibu.com -all", "pass"),
        (b"v=spf1 mx -all", "pass"),
        (b"v=spf1 ptr -all", "pass"),
        (b"v=spf1 include:more.idibu.com -all", "pass"),
        (b"v=spf1 redirect=more.idibu.com", "pass"),
        (b"v=spf1 exists:%{ir}.%{l}.allowed.idibu.com -all exp=why.idibu.com", "pass"),
        (b"v=spf1 include:nothing.idibu.com -all", "permerror"),
        (b"v=spf1 a:broken.idibu.com -all", "temperror"),
        (b"v=spf1 what -all", "permerror"),
        (b"v=spf1 include:loop.idibu.com -all", "permerror"),
        (b"v=spf1 a:n1.idibu.com a:n2.idibu.com a:n3.idibu.com -all", "permerror"),  # too many empty answers
        (b"v=spf1 " + b"a " * 2000, "none"),  # a policy nobody reads to its end
        (b"another text", "none"),
        (b"v=spf1 \xff -all", "permerror"),
    ],
)
async def test_policies(nameserver, resolver, policy, word):
    nameserver.zone |= {
        "idibu.com": {"TXT": [b"unrelated", policy], "MX": ["10 mx.idibu.com."]},
        "mx.idibu.com": {"A": [str(PEER)]},
        pointer(str(PEER)): {"PTR": ["mx.idibu.com."]},
        "more.idibu.com": {"TXT": [b"v=spf1 ip4:193.0.14.129 -all"]},
        "loop.idibu.com": {"TXT": [b"v=spf1 include:loop2.idibu.com -all"]},
        "loop2.idibu.com": {"TXT": [b"v=spf1 include:loop.idibu.com -all"]},
        "129.14.0.193.jane.allowed.idibu.com": {"A": ["127.0.0.2"]},
        "broken.idibu.com": Trouble.SERVFAIL,
    }
    assert str(await result(resolver)) == f"SPF for mail from idibu.com: {word}"
    assert ("why.idibu.com", "TXT") not in nameserver.queries
    assert len(nameserver.queries) <= 41


async def test_ipv6_and_its_names(nameserver, resolver):
    peer = ip_address("2a02:6b8::1")
    nameserver.zone |= {
        "idibu.com": {"TXT": [b"v=spf1 ptr -all"]},
        pointer(str(peer)): {"PTR": ["mx.idibu.com."]},
        "mx.idibu.com": {"AAAA": [str(peer)]},
    }
    assert (await result(resolver, address=peer)).word == "pass"


async def test_the_null_sender_is_judged_by_its_helo(nameserver, resolver):
    nameserver.zone["mx.idibu.com"] = {"TXT": [b"v=spf1 ip4:193.0.14.129 -all"]}
    assert str(await result(resolver, sender="")) == "SPF for HELO mx.idibu.com: pass"


@pytest.mark.parametrize(
    ("sender", "helo"),
    [
        ("", "[193.0.14.129]"),
        ("", ""),
        ("jane@", "x"),
        ("jane@" + "a" * 300, "x"),
        ("jane@a..b", "x"),
        ("j@\udcff", "x"),
    ],
)
async def test_no_domain_no_result(nameserver, resolver, sender, helo):
    assert await result(resolver, sender, helo) is None
    assert nameserver.queries == []


async def test_silence_ends(monkeypatch, nameserver, resolver):
    monkeypatch.setattr(spf, "_TIME_LIMIT", 0.2)
    nameserver.zone["idibu.com"] = Trouble.SILENT
    assert (await result(resolver)).word == "temperror"


async def test_a_policy_that_asks_too_much(nameserver, resolver):
    exchangers = [f"{number} m{number}.idibu.com." for number in range(10)]
    nameserver.zone["idibu.com"] = {
        "TXT": [b"v=spf1 " + b"mx:a.idibu.com mx:b.idibu.com mx:c.idibu.com mx:d.idibu.com mx:e.idibu.com"]
    }
    for name in "abcde":
        nameserver.zone[f"{name}.idibu.com"] = {"MX": [text.replace(" m", f" {name}m") for text in exchangers]}
        nameserver.zone |= {f"{name}m{number}.idibu.com": {"A": ["193.0.15.1"]} for number in range(10)}
    assert (await result(resolver)).word == "permerror"
    assert len(nameserver.queries) <= 41


async def test_evidence_only(bench, signer):
    zone = bench.nameserver.zone
    zone["idibu.com"] = {"TXT": [b"v=spf1 ip4:193.0.14.129 -all"]}
    rules = {"acme": [Rules(dkim=frozenset({"example.com"}))]}
    judgement = await bench.judge_all(signer.sign(), rules, sender="jane@idibu.com", spf=True)
    assert not judgement.verdicts["acme"].trusted
    assert judgement.evidence[-1] == "SPF for mail from idibu.com: pass"
    zone["idibu.com"] = Trouble.SERVFAIL
    judgement = await bench.judge_all(signer.sign(), rules, sender="jane@idibu.com", spf=True)
    assert judgement.verdicts["acme"].rule is Rule.NONE
    assert judgement.evidence[-1] == "SPF for mail from idibu.com: temperror"


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fe80::1", "193.0.14.200"])
async def test_nothing_to_say_of_our_own_network_or_relay(bench, signer, address):
    rules = Rules(dkim=frozenset({"example.com"}), relays=(ip_network("193.0.14.200/32"),))
    judgement = await bench.judge_all(
        signer.mail, {"acme": [rules]}, sender="jane@idibu.com", spf=True, address=address
    )
    assert judgement.evidence == ()
    assert bench.nameserver.queries == []


async def test_spf_gives_way_where_dns_is_busy(nameserver):
    """Half of the places are for what decides: the keys of signatures, the names of peers."""
    nameserver.zone |= {f"s{number}.idibu.com": Trouble.SILENT for number in range(32)}
    nameserver.zone["idibu.com"] = {"TXT": [b"v=spf1 ip4:193.0.14.0/24 -all"]}
    resolver = DnsResolver([nameserver.address], timeout=60)
    assert await result(resolver) is not None
    asking = [asyncio.create_task(resolver.txt(f"s{number}.idibu.com")) for number in range(32)]
    try:
        async with asyncio.timeout(30):
            while not resolver.busy:
                await asyncio.sleep(0)
        assert await result(resolver) is None
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert await result(resolver) is not None


async def test_spf_gives_way_on_its_way(nameserver, resolver, monkeypatch):
    nameserver.zone["idibu.com"] = {"TXT": [b"v=spf1 a:mx.idibu.com -all"]}
    answers = iter([False, False, True])
    monkeypatch.setattr(spf, "is_busy", lambda _: next(answers))
    assert str(await result(resolver)) == "SPF for mail from idibu.com: temperror"
    assert nameserver.queries == [("idibu.com", "TXT")]
