"""The cheap rules in a table, confirmed names, and that nothing is asked of anybody without need."""

from ipaddress import ip_network

import pytest
from names import Trouble, pointer

from apptrack_ingest.trust import Certificate, Rule, Rules, Token, digest_of, new_token

CERTIFICATE = Certificate("ab" * 32, ("mx.idibu.com", "Alt.idibu.com"))
NETS = (ip_network("193.0.14.0/24"), ip_network("2001:db8::/32"))
TOKEN = "mzxw6ytboi5dkojqge3tsnzrgq"


def tokens(**words):
    return {"tokens": {"acme": frozenset(words.get("words", (TOKEN,)))}}


@pytest.mark.parametrize(
    ("rules", "connection", "trusted", "rule", "word"),
    [
        (Rules(networks=NETS), {}, True, Rule.NETWORK, "193.0.14.0/24"),
        (Rules(networks=NETS), {"address": "::ffff:193.0.14.7"}, True, Rule.NETWORK, "peer 193.0.14.7"),
        (Rules(networks=NETS), {"address": "2001:db8::1%eth0"}, True, Rule.NETWORK, "2001:db8::/32"),
        (Rules(networks=NETS), {"address": "193.0.15.1"}, False, Rule.NONE, "no rule matches peer 193.0.15.1"),
        (Rules(networks=NETS), {"address": "no address\n"}, False, Rule.NONE, "no rule matches peer no address?"),
        (Rules(networks=(ip_network("0.0.0.0/0"),)), {"address": ""}, False, Rule.NONE, "no rule"),
        (Rules(relays=NETS), {}, False, Rule.NONE, "does not count: it needs DKIM, ARC or a token recipient"),
        (Rules(relays=NETS, relay_strips_headers=True), {}, True, Rule.RELAY, "strips"),
        (Rules(users=frozenset({"acme-mx"})), {"user": "acme-mx"}, True, Rule.USER, "acme-mx"),
        (Rules(users=frozenset({"mx@acme.example"})), {"user": "mx@acme.example"}, True, Rule.USER, "…@acme.example"),
        (Rules(users=frozenset({"acme-mx"})), {"user": "ACME-MX"}, False, Rule.NONE, "not listed"),
        (Rules(users=frozenset({"acme-mx"})), {}, False, Rule.NONE, "no rule"),
        (Rules(users=frozenset({""})), {"user": None}, False, Rule.NONE, "no rule"),
        (
            Rules(client_certificates=frozenset({"ab" * 32})),
            {"certificate": CERTIFICATE},
            True,
            Rule.CERTIFICATE,
            "mx.idibu.com",
        ),
        (
            Rules(client_certificates=frozenset({"AB" * 32})),
            {"certificate": CERTIFICATE},
            True,
            Rule.CERTIFICATE,
            "mx.idibu.com",
        ),
        (
            Rules(client_certificates=frozenset({"alt.IDIBU.com"})),
            {"certificate": CERTIFICATE},
            True,
            Rule.CERTIFICATE,
            "",
        ),
        (Rules(client_certificates=frozenset({"*"})), {"certificate": CERTIFICATE}, True, Rule.CERTIFICATE, ""),
        (Rules(client_certificates=frozenset({"*"})), {}, False, Rule.NONE, "no rule"),
        (
            Rules(client_certificates=frozenset({"cd" * 32})),
            {"certificate": CERTIFICATE},
            False,
            Rule.NONE,
            "not listed",
        ),
        (
            Rules(client_certificates=frozenset({"idibu.com"})),
            {"certificate": CERTIFICATE},
            False,
            Rule.NONE,
            "not listed",
        ),
        (
            Rules(client_certificates=frozenset({"mx.other.com"})),
            {"certificate": Certificate("cd" * 32, ("*",))},
            False,
            Rule.NONE,
            "not listed",
        ),
        (  # a name of the certificate's own choice is no fingerprint
            Rules(client_certificates=frozenset({"AB" * 32})),
            {"certificate": Certificate("cd" * 32, ("ab" * 32,))},
            False,
            Rule.NONE,
            "not listed",
        ),
        (Rules(tokens=(Token(digest_of(TOKEN)),)), tokens(), True, Rule.TOKEN, "valid token"),
        (Rules(tokens=(Token(digest_of(TOKEN).upper()),)), tokens(words=["x", TOKEN.upper()]), True, Rule.TOKEN, ""),
        (Rules(tokens=(Token(digest_of("other")), Token(digest_of(TOKEN), 2e10))), tokens(), True, Rule.TOKEN, ""),
        (Rules(tokens=(Token(digest_of(TOKEN), 1e9),)), tokens(), False, Rule.NONE, "token has expired"),
        (Rules(tokens=(Token(digest_of(TOKEN), 1e9), Token(digest_of(TOKEN)))), tokens(), True, Rule.TOKEN, ""),
        (Rules(tokens=(Token(digest_of(TOKEN)),)), tokens(words=["guess", ""]), False, Rule.NONE, "no rule"),
        (Rules(tokens=(Token(digest_of(TOKEN)),)), {}, False, Rule.NONE, "no rule"),
        (Rules(), {"user": "x", "certificate": CERTIFICATE, **tokens()}, False, Rule.NONE, "no rule"),
    ],
)
async def test_cheap_rules(bench, signer, rules, connection, trusted, rule, word):
    judgement = await bench.judge_all(signer.sign(), {"acme": [rules]}, spf=True, **connection)
    verdict = judgement.verdicts["acme"]
    assert (verdict.trusted, verdict.rule) == (trusted, rule)
    assert word in verdict.note
    assert verdict.note.isprintable()
    assert TOKEN not in verdict.note.lower()
    assert bench.nameserver.queries == []
    assert judgement.evidence == ()


async def test_peers_that_were_asked_about_are_told_apart(bench, signer):
    rules = Rules(networks=NETS)
    for _ in range(2):
        for peer, trusted in (("193.0.14.7", True), ("193.0.15.7", False), ("193.0.14.8", True), ("no address", False)):
            verdict = await bench.judge(signer.mail, rules, address=peer)
            assert (verdict.trusted, peer in verdict.note) == (trusted, True)
    for number in range(1000):
        rules.by_network(f"10.0.{number // 256}.{number % 256}")
    assert rules._by_network.cache_info().currsize == 256
    assert rules == Rules(networks=NETS), "what was looked up is no part of them"


async def test_own_rules_go_before_those_of_all(bench, signer):
    own, common = Rules(users=frozenset({"acme-mx"})), Rules(networks=NETS)
    judgement = await bench.judge_all(signer.mail, {"acme": [own, common], "beta": [common]}, user="acme-mx")
    assert {name: verdict.rule for name, verdict in judgement.verdicts.items()} == {
        "acme": Rule.USER,
        "beta": Rule.NETWORK,
    }


async def test_a_cheap_yes_spares_dns_and_signatures(bench, signer):
    rules = Rules(networks=NETS, names=("mx.idibu.com",), dkim=frozenset({"idibu.com"}))
    assert (await bench.judge(signer.sign(), rules, spf=True, sender="x@idibu.com")).rule is Rule.NETWORK
    assert bench.nameserver.queries == []
    assert bench.verifier.works == []


async def test_tokens_count_for_their_account_only(bench, signer):
    rules = {name: [Rules(tokens=(Token(digest_of(TOKEN)),))] for name in ("acme", "beta", None)}
    judgement = await bench.judge_all(signer.mail, rules, **tokens())
    assert [name for name, verdict in judgement.verdicts.items() if verdict.trusted] == ["acme"]


async def test_any_of_several_sets_of_rules(bench, signer):
    judgement = await bench.judge_all(signer.mail, {"acme": [Rules(), Rules(networks=NETS)], "beta": []})
    assert judgement.verdicts["acme"].trusted
    assert not judgement.verdicts["beta"].trusted


async def test_no_account_no_verdict(bench, signer):
    assert (await bench.judge_all(signer.mail, {})).verdicts == {}


def test_tokens_are_new_every_time_and_kept_as_digests():
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(token) == 26 and token == token.lower() and token.isalnum() for token in made)
    token = made.pop()
    assert digest_of(token) == digest_of(token.upper())
    assert token not in digest_of(token)


NAMED = Rules(names=("mx1.idibu.com", ".out.idibu.com"))


@pytest.mark.parametrize(
    ("points_to", "name", "addresses", "trusted", "word"),
    [
        ("mx1.idibu.com.", "mx1.idibu.com", {"A": ["193.0.14.1", "193.0.14.129"]}, True, "mx1.idibu.com (confirmed)"),
        ("MX1.Idibu.COM.", "mx1.idibu.com", {"A": ["193.0.14.129"]}, True, "confirmed"),
        ("a.out.idibu.com.", "a.out.idibu.com", {"A": ["193.0.14.129"]}, True, "confirmed"),
        ("out.idibu.com.", "out.idibu.com", {"A": ["193.0.14.129"]}, False, "no listed name"),
        ("evilout.idibu.com.", "evilout.idibu.com", {"A": ["193.0.14.129"]}, False, "no listed name"),
        ("mx1.idibu.com.evil.example.", "mx1.idibu.com.evil.example", {"A": ["193.0.14.129"]}, False, "no listed name"),
        ("mx1.idibu.com.", "mx1.idibu.com", {"A": ["193.0.14.1"]}, False, "points back"),
        ("mx1.idibu.com.", "mx1.idibu.com", {"AAAA": ["::ffff:193.0.14.129"]}, False, "points back"),
        ("mx1.idibu.com.", "elsewhere", {}, False, "points back"),
    ],
)
async def test_names_are_confirmed_both_ways(bench, signer, points_to, name, addresses, trusted, word):
    bench.nameserver.zone |= {pointer(signer.peer): {"PTR": [points_to]}, name: addresses}
    judgement = await bench.judge_all(signer.mail, {"acme": [NAMED]})
    verdict = judgement.verdicts["acme"]
    assert verdict.trusted is trusted
    assert word in verdict.note
    assert len(judgement.evidence) == 1


async def test_a_name_in_ipv6(bench, signer):
    peer = "2a02:6b8::1"
    bench.nameserver.zone |= {pointer(peer): {"PTR": ["mx1.idibu.com."]}, "mx1.idibu.com": {"AAAA": ["2A02:6b8:0::1"]}}
    assert (await bench.judge(signer.mail, NAMED, address=peer)).trusted


@pytest.mark.parametrize("trouble", list(Trouble))
async def test_no_answer_for_a_name_is_not_no(bench, signer, trouble):
    bench.dns_timeout = 0.3
    zone = bench.nameserver.zone
    zone[pointer(signer.peer)] = trouble
    assert (await bench.judge(signer.mail, NAMED)).rule is Rule.UNDECIDED
    zone[pointer(signer.peer)] = {"PTR": ["mx1.idibu.com."]}
    zone["mx1.idibu.com"] = trouble
    assert (await bench.judge(signer.mail, NAMED)).rule is Rule.UNDECIDED
    zone[pointer(signer.peer)] = {"PTR": ["mx1.evil.example."]}  # whatever it were, it is not listed
    assert (await bench.judge(signer.mail, NAMED)).rule is Rule.NONE


async def test_another_rule_decides_where_dns_did_not_answer(bench, signer):
    bench.nameserver.zone[pointer(signer.peer)] = Trouble.SERVFAIL
    rules = Rules(names=NAMED.names, dkim=frozenset({"idibu.com"}))
    assert (await bench.judge(signer.sign(), rules)).rule is Rule.DKIM


async def test_no_more_than_ten_of_the_peer_s_names(bench, signer):
    names = [f"n{number}.out.idibu.com." for number in range(30)]
    bench.nameserver.zone[pointer(signer.peer)] = {"PTR": names}
    assert not (await bench.judge(signer.mail, NAMED)).trusted
    assert len(bench.nameserver.queries) == 11


async def test_relay_names(bench, signer):
    bench.nameserver.zone |= {
        pointer(signer.peer): {"PTR": ["mx.customer.example."]},
        "mx.customer.example": {"A": [signer.peer]},
    }
    strips = Rules(relay_names=("mx.customer.example",), relay_strips_headers=True)
    assert (await bench.judge(signer.mail, strips)).rule is Rule.RELAY
    asked = len(bench.nameserver.queries)
    assert not (await bench.judge(signer.mail, Rules(relay_names=("mx.customer.example",)))).trusted
    assert len(bench.nameserver.queries) == asked
    bench.nameserver.zone[pointer(signer.peer)] = Trouble.SERVFAIL
    assert (await bench.judge(signer.mail, strips)).rule is Rule.UNDECIDED
