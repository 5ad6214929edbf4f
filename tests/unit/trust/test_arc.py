"""ARC: a listed forwarder's seal counts for what it says of a listed sender, and the ids must be the sender's own."""

from ipaddress import ip_network

import pytest
from names import Trouble, pointer

from apptrack_ingest.trust import Rule, Rules

PASSED = b"dkim=pass header.d=idibu.com; spf=pass smtp.mailfrom=bounce@idibu.com"
ALL = {"dkim": frozenset({"idibu.com"}), "arc": frozenset({"forwarder.example"})}
RULES = Rules(**ALL)


def forwarded(signer, results=PASSED, headers=None, original=None, **more):
    """A mail of idibu's with a changed body, so that only the forwarder's word is left."""
    mail = signer.sign(headers=original or signer.signed).replace(b"my CV", b"my [forwarded] CV")
    return signer.seal(mail, results, headers=headers or signer.signed, **more)


async def test_a_listed_forwarder_vouches_for_a_listed_domain(bench, signer):
    judgement = await bench.judge_all(forwarded(signer), {"acme": [RULES]})
    verdict = judgement.verdicts["acme"]
    assert (verdict.trusted, verdict.rule) == (True, Rule.ARC)
    assert verdict.note == "ARC sealed by forwarder.example passes, and says that idibu.com did"
    assert judgement.evidence[-1] == "ARC sealed by forwarder.example: passes"


@pytest.mark.parametrize("results", [b"dkim=pass header.d=idibu.com", b"dkim=pass header.i=@idibu.com header.s=k1",
                                     b"dkim=fail header.d=evil.example; dkim=pass header.d=IDIBU.com",
                                     b"spf=pass smtp.mailfrom=idibu.com"])  # fmt: skip
async def test_either_word_will_do(bench, signer, results):
    assert (await bench.judge(forwarded(signer, results), RULES)).trusted


@pytest.mark.parametrize(
    "results",
    [
        b"none",
        b"dkim=fail header.d=idibu.com; spf=softfail smtp.mailfrom=idibu.com",
        b"dkim=pass header.d=evil.example; spf=pass smtp.mailfrom=evil.example",
        b"dmarc=pass header.from=idibu.com",
        b"spf=pass smtp.helo=idibu.com",
        b"dkim=pass header.i=@idibu.com.evil.example",
    ],
)
async def test_a_seal_alone_says_nothing(bench, signer, results):
    verdict = await bench.judge(forwarded(signer, results), RULES)
    assert not verdict.trusted
    assert verdict.rule is Rule.NONE
    assert "does not say that a listed domain passed DKIM or SPF" in verdict.note


async def test_a_forwarder_that_is_not_listed(bench, signer):
    judgement = await bench.judge_all(
        forwarded(signer), {"acme": [Rules(dkim=frozenset({"idibu.com"}), arc=frozenset({"google.com"}))]}
    )
    assert not judgement.verdicts["acme"].trusted
    assert judgement.evidence[-1] == "ARC sealed by forwarder.example: fails (this forwarder is not listed)"
    assert ("arc._domainkey.forwarder.example", "TXT") not in bench.nameserver.queries


async def test_arc_without_a_listed_domain_asks_nobody(bench, signer):
    assert not (await bench.judge(forwarded(signer), Rules(arc=frozenset({"forwarder.example"})))).trusted
    assert bench.nameserver.queries == []


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (b"my [forwarded] CV", b"my changed CV", "body was changed after the newest seal"),
        (b"X-iTrackID: 3", b"X-iTrackID: 4", "headers were changed after the newest seal"),
        (b"X-iTrackID: 3", b"X-iTrackID: 1\r\nX-iTrackID: 3", "does not cover X-iTrackID"),
        (b"header.d=idibu.com", b"header.d=other.com", "one of its seals does not verify"),
        (b"bounce@idibu.com", b"bouncy@idibu.com", "one of its seals does not verify"),
        (b"cv=none", b"cv=pass", "one of its seals does not verify"),
        (b"ARC-Authentication-Results: i=1", b"X-Gone: i=1", "incomplete"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=2", "incomplete"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=01", "incomplete"),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=" + b"9" * 5000, "incomplete"),
    ],
)
async def test_a_chain_that_was_touched(bench, signer, old, new, word):
    raw = forwarded(signer)
    assert old in raw
    verdict = await bench.judge(raw.replace(old, new, 1), RULES)
    assert not verdict.trusted
    assert verdict.rule is Rule.NONE
    assert word in verdict.note


async def test_two_hops(bench, signer):
    twice = signer.seal(forwarded(signer), PASSED + b"; arc=pass", domain=b"second.example", key="arc2")
    rules = Rules(dkim=frozenset({"idibu.com"}), arc=frozenset({"second.example"}))
    assert (await bench.judge(twice, rules)).trusted
    assert not (await bench.judge(twice, RULES)).trusted  # the newest seal decides
    assert not (await bench.judge(twice.replace(b"bounce@idibu.com", b"bouncy@idibu.com"), rules)).trusted


async def test_more_sets_than_ten(bench, signer):
    raw = forwarded(signer)
    sets = b"".join(
        b"ARC-%s: i=%d; a=rsa-sha256; cv=pass; d=forwarder.example; s=arc; b=AAAA\r\n" % (name, number)
        for number in range(2, 12)
        for name in (b"Seal", b"Message-Signature", b"Authentication-Results")
    )
    assert "incomplete" in (await bench.judge(sets + raw, RULES)).note


async def test_the_forwarder_s_signature_must_cover_the_ids(bench, signer):
    raw = forwarded(signer, headers=[b"from", b"subject", b"x-itrackid"])
    verdict = await bench.judge(raw, RULES)
    assert not verdict.trusted
    assert "its signature does not cover X-iTrackID-ClientID" in verdict.note
    assert (await bench.judge(raw, Rules(**ALL, unsigned_ids=True))).trusted


async def test_ids_not_sealed_are_good_straight_from_a_relay_with_spf(bench, signer):
    relay = {"relays": (ip_network("193.0.14.0/24"),)}
    raw = forwarded(signer, headers=[b"from"])
    assert (await bench.judge(raw, Rules(**ALL, **relay))).trusted
    only_dkim = forwarded(signer, b"dkim=pass header.d=idibu.com", headers=[b"from"])
    assert not (await bench.judge(only_dkim, Rules(**ALL, **relay))).trusted
    assert not (await bench.judge(raw, Rules(**ALL, **relay), address="193.0.15.1")).trusted


async def test_a_relay_by_name(bench, signer):
    raw = forwarded(signer, headers=[b"from"])
    rules = Rules(**ALL, relay_names=(".customer.example",))
    zone = bench.nameserver.zone
    zone[pointer(signer.peer)] = {"PTR": ["mx.customer.example."]}
    zone["mx.customer.example"] = Trouble.SERVFAIL
    assert (await bench.judge(raw, rules)).rule is Rule.UNDECIDED
    zone["mx.customer.example"] = {"A": [signer.peer]}
    assert (await bench.judge(raw, rules)).trusted


async def test_ids_that_the_sender_did_not_sign_may_be_anybody_s(bench, signer):
    """Somebody takes a mail of idibu's, adds ids that its signature does not cover, and sends it to the forwarder."""
    raw = forwarded(signer, b"dkim=pass header.d=idibu.com", original=[b"from", b"subject"])
    verdict = await bench.judge(raw, RULES)
    assert not verdict.trusted
    assert "the sender's own signature does not cover" in verdict.note
    assert (await bench.judge(raw, Rules(**ALL, unsigned_ids=True))).trusted


async def test_a_made_up_signature_beside_the_real_one_does_not_cover_for_it(bench, signer):
    mail = signer.sign(headers=[b"from"]).replace(b"my CV", b"my [forwarded] CV")
    made_up = b"DKIM-Signature: v=1; a=rsa-sha256; d=idibu.com; s=k1; bh=AAAA; b=AAAA; h=" + b":".join(signer.signed)
    raw = signer.seal(made_up + b"\r\n" + mail, b"dkim=fail header.d=idibu.com; dkim=pass header.d=idibu.com")
    assert not (await bench.judge(raw, RULES)).trusted


def confirmation(signer):
    """A mail of idibu's to a stranger, signed without ids."""
    mail = b"From: noreply@idibu.com\r\nTo: x@stranger.example\r\nSubject: Thanks\r\n\r\nThank you\r\n"
    return signer.sign(mail, headers=[b"from", b"to", b"subject"])


def made_up(signer, tags=b"s=k1;"):
    """A signature that verifies nowhere and says that it covers everything."""
    names = b":".join(signer.signed)
    return b"DKIM-Signature: v=1; a=rsa-sha256; d=idibu.com; " + tags + b" bh=AAAA; b=AAAA; h=" + names + b"\r\n"


def padded(genuine: bytes) -> bytes:
    """Still verifies wherever blanks are no matter; we do not read it."""
    at = genuine.index(b"; c=") + 1
    return genuine[:at] + b" " * 250 + genuine[at:]


@pytest.mark.parametrize("unsigned_ids", [False, True])
@pytest.mark.parametrize(
    "hide",
    [
        lambda signer, genuine: made_up(signer) + padded(genuine),
        lambda signer, genuine: made_up(signer) * 10 + genuine,
        lambda signer, genuine: made_up(signer) + genuine.replace(b"s=k1;", b"s=k/1;"),
    ],
)
async def test_a_signature_that_is_hidden_from_us_vouches_for_nothing(bench, signer, hide, unsigned_ids):
    """The forwarder's "dkim=pass" is of the genuine signature, under which anybody may have put an id."""
    forged = hide(signer, b"X-iTrackID: 33139609\r\n" + confirmation(signer))
    raw = signer.seal(forged, b"dkim=pass header.d=idibu.com", headers=[b"from", b"to", b"subject", b"x-itrackid"])
    verdict = await bench.judge(raw, Rules(**ALL, unsigned_ids=unsigned_ids))
    assert (verdict.trusted, verdict.rule) == (False, Rule.NONE)
    assert "or cannot be told from others" in verdict.note
    assert bench.verifier.works == [] or not any(work.chain for work in bench.verifier.works)


async def test_content_that_the_sender_did_not_sign(bench, signer):
    """Somebody puts a second Subject on top of a mail of idibu's, and the forwarder seals both."""
    forged = b"Subject: other\r\n" + signer.sign()
    raw = signer.seal(forged, b"dkim=pass header.d=idibu.com", headers=[*signer.signed, b"subject"])
    assert "the sender's own signature does not cover" in (await bench.judge(raw, RULES)).note


@pytest.mark.parametrize("top", [b"Subject: other\r\n", b"Content-Type: text/html\r\n" * 2])
async def test_content_on_top_of_a_sealed_mail(bench, signer, top):
    verdict = await bench.judge(top + forwarded(signer), RULES)
    assert not verdict.trusted
    assert f"its signature does not cover every {top.split(b':')[0].decode()}" in verdict.note


async def test_who_has_not_the_forwarder_s_seal_has_no_other_seal_looked_at(bench, signer):
    raw = signer.seal(forwarded(signer), PASSED + b"; arc=pass", domain=b"second.example", key="arc2")
    rules = Rules(dkim=frozenset({"idibu.com"}), arc=frozenset({"second.example"}))
    bench.nameserver.zone["arc._domainkey.second.example"] = {"TXT": [signer.key("other")]}
    assert not (await bench.judge(raw, rules)).trusted
    assert ("arc._domainkey.forwarder.example", "TXT") not in bench.nameserver.queries
    bench.nameserver.zone["arc._domainkey.second.example"] = {"TXT": [signer.key("arc2")]}


async def test_an_older_seal_s_key_that_does_not_answer(bench, signer):
    raw = signer.seal(forwarded(signer), PASSED + b"; arc=pass", domain=b"second.example", key="arc2")
    rules = Rules(dkim=frozenset({"idibu.com"}), arc=frozenset({"second.example"}))
    bench.nameserver.zone["arc._domainkey.forwarder.example"] = Trouble.SERVFAIL
    assert (await bench.judge(raw, rules)).rule is Rule.UNDECIDED
    del bench.nameserver.zone["arc._domainkey.forwarder.example"]
    verdict = await bench.judge(raw, rules)
    assert verdict.rule is Rule.NONE
    assert "its key is not in DNS" in verdict.note


async def test_an_older_seal_s_key_made_to_be_slow(bench, signer):
    raw = signer.seal(forwarded(signer), PASSED + b"; arc=pass", domain=b"second.example", key="arc2")
    rules = Rules(dkim=frozenset({"idibu.com"}), arc=frozenset({"second.example"}))
    bench.nameserver.zone["arc._domainkey.forwarder.example"] = {"TXT": [signer.slow_key()]}
    assert "takes too long to compute with" in (await bench.judge(raw, rules)).note


async def test_a_chain_that_cannot_count_is_not_looked_at(bench, signer):
    for raw in (forwarded(signer, b"spf=none"), forwarded(signer, b"dkim=pass header.d=idibu.com", headers=[b"from"])):
        await bench.judge(raw, RULES)
    assert ("arc._domainkey.forwarder.example", "TXT") not in bench.nameserver.queries


async def test_no_original_signature_left(bench, signer):
    raw = signer.seal(signer.mail, b"dkim=pass header.d=idibu.com")
    assert not (await bench.judge(raw, RULES)).trusted


async def test_keys_that_do_not_answer_and_keys_that_are_gone(bench, signer):
    zone = bench.nameserver.zone
    zone["arc._domainkey.forwarder.example"] = Trouble.SERVFAIL
    assert (await bench.judge(forwarded(signer), RULES)).rule is Rule.UNDECIDED
    del zone["arc._domainkey.forwarder.example"]
    verdict = await bench.judge(forwarded(signer), RULES)
    assert verdict.rule is Rule.NONE
    assert "its key is not in DNS" in verdict.note


async def test_a_key_that_does_not_answer_does_not_matter_where_the_forwarder_says_nothing(bench, signer):
    bench.nameserver.zone["arc._domainkey.forwarder.example"] = Trouble.SERVFAIL
    assert (await bench.judge(forwarded(signer, b"spf=none"), RULES)).rule is Rule.NONE
