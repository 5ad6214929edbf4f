"""The applicant's id is read from the mail's own header block alone, exactly once and as it stands; everywhere else it is
text that anybody can have written."""

import pytest

from apptrack_ingest.model import HeldReason
from apptrack_ingest.parse.headers import header_block, peek
from apptrack_ingest.parse.mime import parse

ID = b"X-iTrackID: 666\r\n"
MIXED = b'Content-Type: multipart/mixed; boundary="b"\r\n'
PDF = b"Content-Type: application/pdf\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        MIXED + b"\r\n--b\r\n" + ID + b"\r\nhello\r\n--b--\r\n",
        MIXED
        + b"\r\n--b\r\nContent-Type: multipart/mixed; boundary=c\r\n"
        + ID
        + b"\r\n--c\r\n\r\nx\r\n--c--\r\n--b--\r\n",
        MIXED + b"\r\n--b\r\n" + PDF + ID + b"\r\n%PDF\r\n--b--\r\n",
        MIXED + b"\r\n" + ID + b"\r\n--b\r\n\r\nx\r\n--b--\r\n",
        MIXED + b"\r\n--b\r\n\r\nx\r\n--b--\r\n" + ID,
        b"\r\n" + ID + b"\r\nhello",
        b"Subject: hello\r\n\r\n" + ID + b"\r\nhello",
        b"Subject: hello\r\n\r\n-----Original Message-----\r\nFrom: a@b.c\r\n" + ID + b"\r\nhello",
        b"Subject: hello\r" + ID + b"\r\nhello",
        b"Subject: hello\r\n " + ID + b"\r\nhello",
        b"Subject: =?utf-8?q?a=0D=0AX-iTrackID:_666?=\r\n\r\nhello",
        b"To: X-iTrackID: 666\r\n\r\nhello",
        b"\x00" + ID + b"\r\nhello",
        b"X-iTrackID\r\n : 666\r\n\r\nhello",
        b"X-iTrackID-: 666\r\n\r\nhello",
        b"XX-iTrackID: 666\r\n\r\nhello",
        b"Content-Type: text/rfc822-headers\r\n\r\n" + ID + b"\r\n",
        MIXED + b"\r\n--b\r\nContent-Type: message/partial\r\n\r\n" + ID + b"\r\nx\r\n--b--\r\n",
        MIXED + b"\r\n--b\r\nContent-Type: text/plain; name=a.txt\r\n\r\n" + ID + b"\r\nx\r\n--b--\r\n",
    ],
)
def test_what_is_not_in_the_mails_own_header_is_no_id(raw):
    parsed = parse(raw)
    assert (parsed.applicant_id, parsed.id_problem) == (None, HeldReason.NO_APPLICANT_ID)
    assert not parsed.unwrapped and peek(header_block(raw, 2000)).applicant_id is None


ATTACHED = b"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n" + ID + b"Subject: inner\r\n\r\nx\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"X-iTrackID: 5", (5, None)),
        (b"x-itrackid:5", (5, None)),
        (b"X-ITRACKID :\t5 ", (5, None)),
        (b"X-iTrackID:\r\n 5", (5, None)),
        (b"X-iTrackID: 0005", (5, None)),
        *(
            (header, (None, HeldReason.INVALID_APPLICANT_ID))
            for header in (
                b"X-iTrackID:",
                b"X-iTrackID: 0",
                b"X-iTrackID: -5",
                b"X-iTrackID: +5",
                b"X-iTrackID: 5.0",
                b"X-iTrackID: 5 (five)",
                b"X-iTrackID: 5, 6",
                b"X-iTrackID: 5\r\n 6",
                b"X-iTrackID: 0x5",
                b"X-iTrackID: 9223372036854775808",
                b"X-iTrackID: =?utf-8?q?5?=",
                b"X-iTrackID: 5\x00",
                b"X-iTrackID: \xd9\xa5",
                b"X-iTrackID: 5\r 6",
                b"X-iTrackID: 5\r\nX-iTrackID: 5",
                b"X-iTrackID: 5\r\nx-itrackid : 6",
                b"X-iTrackID: 5\r\nX-iTrackID:",
                b"\xef\xbb\xbfX-iTrackID: 5\r\nX-iTrackID: 6",
            )
        ),
    ],
)
def test_an_attached_mail_changes_nothing_where_the_mail_has_the_header_itself(header, expected):
    raw = header + b"\r\n" + MIXED + ATTACHED
    parsed, seen = parse(raw), peek(header_block(raw, 2000))
    assert (parsed.applicant_id, parsed.id_problem) == (seen.applicant_id, seen.id_problem) == expected
    assert not parsed.unwrapped and parsed.inner is None
    assert [one.claimed_type for one in parsed.documents] == ["message/rfc822"]


def test_an_unwrapped_id_comes_with_the_mail_that_has_to_vouch_for_it():
    parsed = parse(MIXED + ATTACHED)
    assert parsed.unwrapped and parsed.applicant_id == 666
    assert parsed.inner is not None and parsed.inner.startswith(ID + b"Subject: inner")
