"""The X-iTrackID headers: both documented examples, and nothing made up where a value cannot be trusted."""

import pytest

from apptrack_ingest.model import HeldReason, Job, Owner, Source
from apptrack_ingest.parse.headers import header_block, scan_header_block
from apptrack_ingest.parse.metadata import canonical, read_metadata, split_owner


def read(block: bytes):
    return read_metadata(scan_header_block(block))


def test_first_documented_example(sample):
    metadata = read(header_block(sample("documented-lower-case"), 10_000))
    assert metadata.applicant_id == 33139609 and metadata.id_problem is None
    assert metadata.client_reference == "Some-CUSTOM-Ref"
    assert metadata.job == Job(33007724, "Financial Services Roles", "testref123", "2 Permanent")
    assert metadata.source == Source(517, "idibu Developer Board", 333064639)
    assert metadata.owner == Owner(602, "Steve Walker", "steve@idibu.com", None, None)
    assert metadata.warnings == ()


def test_second_documented_example(sample):
    metadata = read(header_block(sample("documented-mixed-case"), 10_000))
    assert metadata.applicant_id == 40809163 and metadata.client_reference is None
    assert metadata.job == Job(37068825, "Senior .Net Developer", "JO-1502-428583", "2 Permanent")
    assert metadata.source == Source(338, "Seek", 38504886)
    assert metadata.owner == Owner(3007241, "Kara Smith", "karas@idibu.com", "New Zealand", "AUK JS Uploads")


def test_no_headers_at_all():
    metadata = read(b"Subject: x\r\n")
    assert metadata.id_problem is HeldReason.NO_APPLICANT_ID
    assert (metadata.job, metadata.source, metadata.owner) == (Job(), Source(), Owner())
    assert metadata.warnings == ()


def test_folded_and_encoded_values():
    metadata = read(
        b"X-iTrackID-Portal-Name: Stellen\r\n =?utf-8?q?b=C3=B6rse?=\r\n\tWest\r\n"
        b"X-iTrackID-ClientReference:\r\n =?utf-8?b?UsOpZg==?=\r\n"
    )
    assert metadata.source.portal_name == "Stellen börse West"
    assert metadata.client_reference == "Réf"


def test_clean_utf8_is_a_certain_reference():
    assert read("X-iTrackID-ClientReference: RÉF-1\r\n".encode()).client_reference == "RÉF-1"


@pytest.mark.parametrize("value", [b"REF\xe9-1", b"=?us-ascii?q?REF=E9-1?=", b"=?x-none?q?REF?=", b"REF\x00-1"])
@pytest.mark.parametrize("header", [b"ClientReference", b"Reference"])
def test_an_uncertain_reference_is_no_reference(header, value):
    metadata = read(b"X-iTrackID-" + header + b": " + value + b"\r\n")
    assert metadata.client_reference is None and metadata.job.reference is None
    assert any("cannot be decoded for certain" in warning for warning in metadata.warnings)


def test_the_warning_shows_the_bytes_as_sent():
    assert r"REF\\xe9-1" in read(b"X-iTrackID-ClientReference: REF\xe9-1\r\n").warnings[0]


def test_other_uncertain_text_is_read_with_a_warning():
    metadata = read(b"X-iTrackID-Office: M\xe1laga\r\n")
    assert metadata.owner.office == "Málaga"
    assert len(metadata.warnings) == 1 and "Office" in metadata.warnings[0]


def test_raw_bytes_are_read_in_the_bodys_charset_but_no_reference_is():
    metadata = read(
        b"Content-Type: text/plain; charset=windows-1251\r\n"
        + "X-iTrackID-Office: Москва\r\nX-iTrackID-Reference: ЖУК-1\r\n".encode("cp1251")
    )
    assert metadata.owner.office == "Москва"
    assert metadata.job.reference is None
    assert len(metadata.warnings) == 2


@pytest.mark.parametrize(
    "value", [b"=?iso-8859-1?q?R=C3=89F-1?=", "RÃ‰F-1".encode(), b"=?utf-8?q?REF", b"=?utf-8?b?UkVGL?="]
)
def test_a_repaired_reference_is_a_guess(value):
    metadata = read(b"X-iTrackID-ClientReference: " + value + b"\r\n")
    assert metadata.client_reference is None and len(metadata.warnings) == 1


def test_repeated_headers():
    same = read(b"X-iTrackID-Title: Cook\r\nX-itrackid-title:  Cook\r\n")
    assert same.job.title == "Cook" and same.warnings == ()
    different = read(b"X-iTrackID-JobID: 1\r\nX-iTrackID-JobID: 2\r\n")
    assert different.job.id is None and "more than once" in different.warnings[0]


@pytest.mark.parametrize("value", [b"abc", b"1.5", b"-3", b"9" * 25])
def test_a_number_that_is_none(value):
    metadata = read(b"X-iTrackID-PortalID: " + value + b"\r\n")
    assert metadata.source.portal_id is None and "PortalID" in metadata.warnings[0]


def test_empty_values_are_missing_values():
    metadata = read(b"X-iTrackID-PortalID: \r\nX-iTrackID-Office:\r\n")
    assert metadata.source.portal_id is None and metadata.owner.office is None and metadata.warnings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Steve Walker (steve@idibu.com)", ("Steve Walker", "steve@idibu.com")),
        ("Steve (UK) Walker (steve@idibu.com)", ("Steve (UK) Walker", "steve@idibu.com")),
        ("Steve Walker <steve@idibu.com>", ("Steve Walker", "steve@idibu.com")),
        ("(steve@idibu.com)", (None, "steve@idibu.com")),
        ("steve@idibu.com", (None, "steve@idibu.com")),
        ("Steve Walker (London)", ("Steve Walker (London)", None)),
        ("Steve Walker", ("Steve Walker", None)),
        (None, (None, None)),
    ],
)
def test_split_owner(text, expected):
    assert split_owner(text) == expected


def test_canonical_knows_no_case_fold_or_encoding():
    one = scan_header_block(b"X-iTrackID: 1\r\nX-iTrackID-Title: Caf\xc3\xa9 a b\r\nX-iTrackID-Other: x\r\n")
    two = scan_header_block(b"x-itrackid-title: =?iso-8859-1?q?Caf=E9?=\r\n a\r\n\tb\r\nx-itrackid:1\r\n")
    assert canonical(one) == canonical(two) == (("x-itrackid", "1"), ("x-itrackid-title", "Café a b"))
