"""DKIM end to end but for the process: what counts, what does not, and that the note says why."""

import hashlib

import pytest
from names import Trouble

from apptrack_ingest.trust import Rule, Rules
from apptrack_ingest.trust.signatures import Checked

IDIBU = Rules(dkim=frozenset({"idibu.com"}))


def _assert_no(verdict, *words):
    assert not verdict.trusted
    assert verdict.rule is Rule.NONE
    for word in words:
        assert word in verdict.note
    assert "\n" not in verdict.note


@pytest.mark.parametrize("form", [b"relaxed/relaxed", b"relaxed/simple", b"simple/relaxed", b"simple/simple"])
async def test_a_signature_that_covers_the_ids_is_believed(bench, signer, form):
    judgement = await bench.judge_all(signer.sign(form=form), {"acme": [IDIBU]})
    verdict = judgement.verdicts["acme"]
    assert (verdict.trusted, verdict.rule) == (True, Rule.DKIM)
    assert verdict.note == "DKIM d=idibu.com s=k1 passes and covers the ids"
    assert judgement.evidence == ("DKIM d=idibu.com s=k1: passes",)


async def test_ed25519(bench, signer):
    assert (await bench.judge(signer.sign_ed25519(), IDIBU)).trusted


@pytest.mark.parametrize("listed", ["IDIBU.com", "idibu.com."])
async def test_the_listed_domain_may_be_spelled_otherwise(bench, signer, listed):
    assert (await bench.judge(signer.sign(), Rules(dkim=frozenset({listed})))).trusted


async def test_an_international_domain(bench, signer):
    bench.nameserver.zone["k1._domainkey.xn--bcher-kva.example"] = {"TXT": [signer.key()]}
    raw = signer.sign(domain=b"xn--bcher-kva.example")
    assert (await bench.judge(raw, Rules(dkim=frozenset({"Bücher.example"})))).trusted


@pytest.mark.parametrize("listed", ["example.com", "mail.idibu.com", "com", "evilidibu.com"])
async def test_another_domain_is_not_looked_up(bench, signer, listed):
    _assert_no(
        await bench.judge(signer.sign(), Rules(dkim=frozenset({listed}))), "no DKIM signature of a listed domain"
    )
    assert bench.nameserver.queries == []
    assert bench.verifier.works == []


async def test_bare_line_feeds_are_read_as_lines(bench, signer):
    assert (await bench.judge(signer.sign().replace(b"\r\n", b"\n"), IDIBU)).trusted


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (b"please find", b"please do not find", "the body was changed"),
        (b"33139609", b"33139610", "signed headers were changed"),
        (b"Subject: Application", b"Subject: Applications", "signed headers were changed"),
        (b"X-iTrackID: 3", b"X-iTrackID: 9\r\nX-iTrackID: 3", "does not cover X-iTrackID"),
        (b"X-iTrackID: 3", b"X-iTrackID-Reference: forged\r\nX-iTrackID: 3", "does not cover X-iTrackID-Reference"),
        (b"X-iTrackID: 3", b"X-iTrackID-Reference : forged\r\nX-iTrackID: 3", "a line that is no header"),
        (b"Subject: App", b"Subject: A\rX-iTrackID-Team: x", "a bare CR"),
        (b"From: Jane", b"From: evil@example.net\r\nFrom: Jane", "does not cover every From"),
        (b"X-iTrackID: 33139609", b"X-iTrackID:\r\nFrom x\r\n 33139609", "a line that is no header"),
    ],
)
async def test_a_mail_that_was_changed(bench, signer, old, new, word):
    raw = signer.sign()
    assert old in raw
    _assert_no(await bench.judge(raw.replace(old, new, 1), IDIBU), word)


async def test_relaxed_survives_folding_and_case(bench, signer):
    raw = signer.sign().replace(b"X-iTrackID-ClientID: 42", b"X-ITRACKID-clientid:\r\n\t 42 ")
    assert (await bench.judge(raw, IDIBU)).trusted


async def test_headers_not_covered_are_named_and_can_be_allowed(bench, signer):
    raw = signer.sign(headers=[b"from", b"subject", b"x-itrackid"])
    judgement = await bench.judge_all(raw, {"acme": [IDIBU]})
    verdict = judgement.verdicts["acme"]
    _assert_no(verdict, "the signature does not cover X-iTrackID-ClientID, X-iTrackID-Title")
    assert judgement.evidence == (
        "DKIM d=idibu.com s=k1: fails (the signature does not cover X-iTrackID-ClientID, X-iTrackID-Title)",
    )
    assert bench.verifier.works == []  # it could not count, so nobody computes
    assert bench.nameserver.queries == []
    unsigned = Rules(dkim=frozenset({"idibu.com"}), unsigned_ids=True)
    judgement = await bench.judge_all(raw, {"acme": [unsigned], "beta": [IDIBU]})
    assert "unsigned_ids" in judgement.verdicts["acme"].note
    assert judgement.verdicts["acme"].trusted
    _assert_no(judgement.verdicts["beta"], "the signature does not cover X-iTrackID-ClientID, X-iTrackID-Title")
    assert judgement.evidence == (
        "DKIM d=idibu.com s=k1: passes, but does not cover X-iTrackID-ClientID, X-iTrackID-Title",
    )


MIME = b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\nReply-To: jane@example.org\r\n"


@pytest.mark.parametrize("unsigned_ids", [False, True])
@pytest.mark.parametrize(
    "top",
    [b"Subject: other\r\n", b"subject:\r\n", b"From: x@evil.example\r\n", b"Reply-To: x@evil.example\r\n",
     b'Content-Type: multipart/mixed; boundary="x"\r\n', b"content-type: text/html\r\n", b"MIME-Version: 1.0\r\n",
     *(b"Content-%s: x\r\n" % name * 2 for name in (b"Transfer-Encoding", b"Disposition", b"ID", b"Description",
                                                    b"Location"))],
)  # fmt: skip
async def test_a_signed_mail_with_other_content_on_top(bench, signer, top, unsigned_ids):
    """Sent again by somebody who has a copy: the signature verifies, and the reader would see what he put on top."""
    rules = Rules(dkim=frozenset({"idibu.com"}), unsigned_ids=unsigned_ids)
    for signed in (signer.signed, [*signer.signed, b"mime-version", b"content-type", b"reply-to"]):
        raw = signer.sign_by_hand(MIME + signer.mail, headers=signed)
        assert (await bench.judge(raw, rules)).trusted  # one that is not signed is common
        verdict = await bench.judge(top + raw, rules)
        _assert_no(verdict)
        assert f"does not cover every {top.split(b':')[0].decode()}".lower() in verdict.note.lower()


async def test_two_of_a_header_both_signed(bench, signer):
    mail = b"Content-Type: text/plain\r\n" * 2 + signer.mail
    _assert_no(await bench.judge(signer.sign(mail), IDIBU), "every Content-Type")
    assert (await bench.judge(signer.sign(mail, headers=[*signer.signed, *[b"content-type"] * 2]), IDIBU)).trusted


async def test_the_subject_must_be_covered_where_there_is_one(bench, signer):
    headers = [b"from", *signer.ids]
    _assert_no(await bench.judge(signer.sign(headers=headers), IDIBU), "does not cover Subject")
    at = signer.mail.index(b"Subject"), signer.mail.index(b"Date")
    without = signer.mail[: at[0]] + signer.mail[at[1] :]
    assert (await bench.judge(signer.sign(without, headers=headers), IDIBU)).trusted
    _assert_no(await bench.judge(b"Subject: x\r\n" + signer.sign(without, headers=headers), IDIBU), "cover Subject")


async def test_names_without_end_do_not_count(bench, signer):
    names = [b"n%d" % number for number in range(94)]
    assert (await bench.judge(signer.sign_by_hand(headers=[*signer.signed, *names]), IDIBU)).trusted
    more = signer.sign_by_hand(headers=[*signer.signed, *names, b"one-more"])
    _assert_no(await bench.judge(more, IDIBU), "names more than 100 headers")


async def test_a_check_broken_off_is_no_verdict(bench, signer):
    class Broken:
        async def check(self, work, network=""):
            return Checked({}, unfinished="checking it was broken off")

    bench.verifier = Broken()
    verdict = await bench.judge(signer.sign(), IDIBU)
    assert (verdict.trusted, verdict.rule) == (False, Rule.UNDECIDED)
    assert verdict.note == "DKIM d=idibu.com s=k1: cannot be told (checking it was broken off)"


async def test_oversigned_headers_forbid_one_more(bench, signer):
    raw = signer.sign(headers=[*signer.signed, *signer.ids])
    assert (await bench.judge(raw, IDIBU)).trusted
    more = raw.replace(b"X-iTrackID: 3", b"X-iTrackID: 9\r\nX-iTrackID: 3", 1)
    _assert_no(await bench.judge(more, IDIBU), "signed headers were changed")


async def test_two_equal_ids_both_signed(bench, signer):
    mail = signer.mail.replace(b"X-iTrackID: 33139609", b"X-iTrackID: 33139609\r\nX-iTrackID: 33139609")
    _assert_no(await bench.judge(signer.sign(mail), IDIBU), "does not cover X-iTrackID")
    assert (await bench.judge(signer.sign(mail, headers=[*signer.signed, b"x-itrackid"]), IDIBU)).trusted


async def test_the_second_signature_counts_too(bench, signer):
    raw = signer.sign(signer.sign(), key="other")  # the topmost was made with a key that is not in DNS
    judgement = await bench.judge_all(raw, {"acme": [IDIBU]})
    assert judgement.verdicts["acme"].trusted
    first, second = judgement.evidence
    assert "fails" in first
    assert second.endswith("passes")


async def test_no_more_than_ten_are_tried(bench, signer):
    raw = signer.sign()
    line = raw[: raw.index(b"\r\nFrom:") + 2]
    broken = line.replace(b"bh=", b"bh=AAAA")
    assert (await bench.judge(broken * 9 + raw, IDIBU)).trusted
    assert not (await bench.judge(broken * 10 + raw, IDIBU)).trusted


async def test_tags_by_hand_pass_at_all(bench, signer):
    assert (await bench.judge(signer.sign_by_hand(), IDIBU)).trusted


async def test_a_part_of_the_body_is_not_enough(bench, signer):
    _assert_no(await bench.judge(signer.sign(length=True), IDIBU), "only a part of the body")
    _assert_no(await bench.judge(signer.sign(length=True) + b"more\r\n", IDIBU), "only a part of the body")


async def test_expiry_by_our_clock(bench, signer):
    raw = signer.sign_by_hand(tags=b" x=%d;" % (bench.time + 3600))
    assert (await bench.judge(raw, IDIBU)).trusted
    bench.time += 3601
    _assert_no(await bench.judge(raw, IDIBU), "it has expired")


@pytest.mark.parametrize("expiry", [b"never", b"9" * 5000, b"-1", b""])
async def test_an_odd_expiry_is_past(bench, signer, expiry):
    _assert_no(await bench.judge(signer.sign_by_hand(tags=b" x=" + expiry + b";"), IDIBU), "it has expired")


async def test_sha1_proves_nothing(bench, signer):
    raw = signer.sign_by_hand(hasher=hashlib.sha1, algorithm=b"rsa-sha1")
    _assert_no(await bench.judge(raw, IDIBU), "its algorithm")


async def test_from_must_be_covered(bench, signer):
    _assert_no(await bench.judge(signer.sign_by_hand(headers=signer.ids), IDIBU), "does not cover From")


@pytest.mark.parametrize(
    ("record", "word"),
    [
        (b"v=DKIM1; p=", "revoked"),
        (b"v=DKIM1; k=rsa; p=AAAA", "cannot be read"),
        (b"v=DKIM1; k=rsa; p=!!!", "cannot be read"),
        (b"v=DKIM2; p=AAAA", "cannot be read"),
        (b"no list; p=AAAA; p=BBBB", "cannot be read"),
        (b"v=DKIM1; p=" + b"A" * 4000, "cannot be read"),
        (b"p=\xff\xfe", "cannot be read"),
        (b"v=spf1 -all", "not in DNS"),
    ],
)
async def test_key_records_that_are_no_good(bench, signer, record, word):
    bench.nameserver.zone["k1._domainkey.idibu.com"] = {"TXT": [record]}
    _assert_no(await bench.judge(signer.sign(), IDIBU), word)


@pytest.mark.parametrize(
    ("tags", "word"),
    [(b"t=y;", "testing"), (b"t=s : y;", "testing"), (b"s=tlsrpt;", "not for mail"), (b"h=sha1;", "SHA-256")],
)
async def test_restrictions_of_a_key(bench, signer, tags, word):
    record = signer.key().replace(b"k=rsa;", b"k=rsa; " + tags)
    bench.nameserver.zone["k1._domainkey.idibu.com"] = {"TXT": [record]}
    _assert_no(await bench.judge(signer.sign(), IDIBU), word)


@pytest.mark.parametrize("tags", [b"t=s;", b"s=email : tlsrpt;", b"h=sha1:sha256;", b"n=notes;"])
async def test_restrictions_that_allow_it(bench, signer, tags):
    record = signer.key().replace(b"k=rsa;", b"k=rsa; " + tags)
    bench.nameserver.zone["k1._domainkey.idibu.com"] = {"TXT": [b"unrelated", record]}
    assert (await bench.judge(signer.sign(), IDIBU)).trusted


async def test_a_key_of_another_kind(bench, signer):
    bench.nameserver.zone["k1._domainkey.idibu.com"] = {"TXT": [signer.ed25519()]}
    _assert_no(await bench.judge(signer.sign(), IDIBU), "another kind")


async def test_a_weak_key(bench, signer):
    bench.nameserver.zone["k1._domainkey.idibu.com"] = {"TXT": [signer.weak_key()]}
    _assert_no(await bench.judge(signer.sign(), IDIBU), "too weak (1023 bits)")


@pytest.mark.parametrize("numbers", [{"exponent": 2**32 + 1}, {"bits": 4097, "exponent": 65537}])
async def test_a_key_made_to_be_slow(bench, signer, numbers):
    bench.nameserver.zone["k1._domainkey.idibu.com"] = {"TXT": [signer.slow_key(**numbers)]}
    _assert_no(await bench.judge(signer.sign(), IDIBU), "takes too long to compute with")


@pytest.mark.parametrize("numbers", [{"exponent": 2**32 - 1}, {"bits": 4096, "exponent": 65537}])
async def test_a_key_just_not_too_slow(bench, signer, numbers):
    bench.nameserver.zone["k1._domainkey.idibu.com"] = {"TXT": [signer.slow_key(**numbers)]}
    _assert_no(await bench.judge(signer.sign(), IDIBU), "another key signed it")


async def test_another_key(bench, signer):
    bench.nameserver.zone["k1._domainkey.idibu.com"] = {"TXT": [signer.key("other")]}
    _assert_no(await bench.judge(signer.sign(), IDIBU), "another key")


async def test_a_key_that_is_gone_is_gone(bench, signer):
    del bench.nameserver.zone["k1._domainkey.idibu.com"]
    _assert_no(await bench.judge(signer.sign(), IDIBU), "its key is not in DNS")
    bench.nameserver.zone["k1._domainkey.idibu.com"] = {"A": ["193.0.14.1"]}
    _assert_no(await bench.judge(signer.sign(), IDIBU), "its key is not in DNS")


@pytest.mark.parametrize("trouble", list(Trouble))
async def test_no_answer_is_not_no(bench, signer, trouble):
    bench.dns_timeout = 0.3
    bench.nameserver.zone["k1._domainkey.idibu.com"] = trouble
    verdict = await bench.judge(signer.sign(), IDIBU)
    assert (verdict.trusted, verdict.rule) == (False, Rule.UNDECIDED)
    assert "DNS did not answer" in verdict.note


async def test_no_answer_for_one_key_but_another_signature_passes(bench, signer):
    bench.nameserver.zone["k2._domainkey.idibu.com"] = Trouble.SERVFAIL
    raw = signer.sign(signer.sign(), selector=b"k2")
    assert (await bench.judge(raw, IDIBU)).trusted


async def test_no_answer_does_not_matter_where_the_ids_are_not_covered(bench, signer):
    bench.nameserver.zone["k1._domainkey.idibu.com"] = Trouble.SERVFAIL
    _assert_no(await bench.judge(signer.sign(headers=[b"from"]), IDIBU), "does not cover")


async def test_silence_past_the_whole_time_is_undecided(bench, signer):
    bench.timeout, bench.dns_timeout = 0.2, 5.0
    bench.nameserver.zone["k1._domainkey.idibu.com"] = Trouble.SILENT
    verdict = await bench.judge(signer.sign(), IDIBU)
    assert verdict.rule is Rule.UNDECIDED
    assert "took too long" in verdict.note


async def test_each_account_by_its_own_rules(bench, signer):
    rules = {"acme": [Rules(), IDIBU], "beta": [Rules()], None: [Rules(dkim=frozenset({"example.com"}))]}
    judgement = await bench.judge_all(signer.sign(), rules)
    assert {account: verdict.trusted for account, verdict in judgement.verdicts.items()} == {
        "acme": True,
        "beta": False,
        None: False,
    }


async def test_no_person_s_address_in_what_is_said(bench, signer):
    raw = signer.sign(identity=b"jane.secret@idibu.com")
    judgement = await bench.judge_all(raw, {"acme": [IDIBU]}, sender="jane.secret@idibu.com", spf=True)
    assert "jane" not in f"{judgement}"
