"""The content digest: equal for two copies of one application, different for an update."""

import pytest

from apptrack_ingest.parse.digest import ContentDigest, canonical_leaf
from apptrack_ingest.parse.mime import parse


def test_forward_to_and_global_cc_copies_are_one_content(sample):
    forward, copy = parse(sample("forward-to")), parse(sample("global-cc"))
    assert forward.content_digest == copy.content_digest
    assert forward.content_digest.startswith("v1:") and len(forward.content_digest) == 3 + 64
    assert forward.client_reference == copy.client_reference == "ATS-2025/17"
    assert forward.source == copy.source
    assert forward.candidate == copy.candidate
    assert forward.subject == copy.subject == "Application für den Job"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"X-iTrackID: 40809200", b"X-iTrackID: 40809201"),
        (b"ATS-2025/17", b"ATS-2025/18"),
        (b"1 Contract", b"2 Permanent"),
        (b"Subject: =?utf-8?q?A", b"Subject: =?utf-8?q?B"),
        (b"I apply", b"I still apply"),
        (b"JVBERi0xLjQ", b"JVBERi0xLjU"),
    ],
)
def test_any_other_content_is_an_update(sample, old, new):
    raw = sample("forward-to")
    assert old in raw
    assert parse(raw.replace(old, new)).content_digest != parse(raw).content_digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Message-ID: <1@idibu.example>", b"Message-ID: <2@idibu.example>"),
        (b"To: consultant@customer.example", b"To: other@customer.example"),
        (b"\r\n", b"\n"),
        (b"AAAA", b"BBBB"),
    ],
)
def test_transport_is_not_content(sample, old, new):
    raw = sample("forward-to")
    assert old in raw
    assert parse(raw.replace(old, new)).content_digest == parse(raw).content_digest


def content_digest(metadata, subject, leaves):
    digest = ContentDigest(metadata, subject)
    for leaf in leaves:
        digest.add_leaf("application/octet-stream", leaf)
    return str(digest)


def test_the_rule_of_version_1_stays_as_it_is():
    """Mails delivered before an upgrade are recognised after it: what was v1 then must be v1 now."""
    digest = ContentDigest([("x-itrackid", "1")], "Applying  as\tcook")
    digest.add_leaf("text/plain", b"a\r\nb\r\n\r\n")
    digest.add_leaf("application/pdf", b"%PDF\r\n")
    assert str(digest) == "v1:3d45f542006065cfa70bc9b36a5d69e1daf38675230eb74d9d13435285ca8491"


def test_fields_do_not_run_together():
    assert content_digest([("a", "bc")], "d", [b"e"]) != content_digest([("ab", "c")], "d", [b"e"])
    assert content_digest([], "d", [b"e", b"f"]) != content_digest([], "d", [b"ef"])


def test_binary_leaves_are_taken_as_they_are():
    assert canonical_leaf("application/pdf", b"a\r\n\n") == b"a\r\n\n"
    assert canonical_leaf("text/plain", b"a\r\nb\r\n\r\n") == b"a\nb"


def test_a_header_that_says_nothing_is_not_content(sample):
    raw = sample("forward-to")
    for empty in (b"X-iTrackID-Office:\r\n", b"X-Itrackid-Team: \r\n \r\n"):
        assert parse(empty + raw).content_digest == parse(raw).content_digest
