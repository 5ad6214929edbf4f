"""Small mails, one for each thing that goes wrong with structure and documents (tests/mails/README.md tells which)."""

from collections.abc import Callable

import pytest

from apptrack_ingest.model import HeldReason, Parsed, Role
from apptrack_ingest.parse.mime import parse

Read = Callable[[str], Parsed]
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


@pytest.fixture
def read(sample) -> Read:
    return lambda name: parse(sample(name))


def cv_of(parsed: Parsed) -> bytes:
    assert parsed.documents[0].role is Role.CV
    return parsed.documents[0].content


@pytest.mark.parametrize(
    ("name", "text", "warning"),
    [
        ("document-only", None, None),
        ("mime-boundary-unclosed", "I apply for the job.", "not closed"),
        ("mime-boundary-undeclared", "I apply for the job.", "names no boundary that is there"),
        ("mime-boundary-wrong", "I apply for the job.", "names no boundary that is there"),
        ("mime-boundary-repeated", "I apply for the job.", "parts follow after the end"),
        ("mime-boundary-equal", "I apply for the job.", "parts follow after the end"),
        ("mime-header-unfolded", "I apply for the job.", None),
        ("mime-header-into-body", "I apply without an empty line.", "headers run into its body"),
        ("mime-type-unreadable", "I apply.", "of a type that cannot be read"),
        ("mime-uuencoded-in-text", "begin at once, I could.\nMy CV:\n\n\nJane\n", "uuencoded file 'cv.pdf'"),
        ("mime-uuencoded-part", "I apply for the job.", None),
        ("forwarded-application", "I apply for the job.", "forwarded inside another mail"),
        ("forwarded-twice", "I apply for the job.", "forwarded inside another mail"),
        ("forwarded-by-a-job-board", "A candidate wrote to us.", None),
        ("tnef-cv", "I apply, Jane Doe\nfrom Zürich", None),
        ("tnef-broken-off", "I apply for the job.", "winmail.dat is damaged"),
        ("signed-smime-opaque", "I apply for the job.", None),
        ("signed-smime-streamed", "I apply for the job.", None),
        ("signed-smime-detached", "I apply for the job.", None),
        ("signed-pgp-mime", "I apply for the job.", None),
    ],
)
def test_the_cv_comes_out_whole(read, name, text, warning):
    parsed = read(name)
    assert parsed.applicant_id == 40809300 and parsed.candidate.email == "jane.doe@example.org"
    assert cv_of(parsed) == PDF and parsed.text == text
    assert [warning in one for one in parsed.warnings[:1]] == ([True] if warning else [])


def test_every_spelling_of_a_name(read):
    names = [(one.original_name, one.name) for one in read("document-names").documents]
    long = "long " * 60 + ".pdf"
    assert names == [
        ("Jürgen CV.pdf", "Jürgen CV.pdf"),
        ("Müller.pdf", "Müller.pdf"),
        ("Ärztin.pdf", "Ärztin.pdf"),
        ("Größe.pdf", "Größe.pdf"),
        ("only in the type.pdf", "only in the type.pdf"),
        (None, "only described.pdf"),
        (None, "document.pdf"),
        ("..", "document-2.pdf"),
        ("/etc/passwd", "passwd.pdf"),
        ("C:TEMPwindows.pdf", "windows.pdf"),
        ("exe\u202efdp.pdf", "exefdp.pdf"),
        ("con.pdf", "_con.pdf"),
        (long, "long " * 29 + "l.pdf"),
        ("twice.pdf", "twice.pdf"),
        ("TWICE.pdf", "TWICE-2.pdf"),
        ("without quotes (2).pdf", "without quotes (2).pdf"),
        ("without a semicolon.pdf", "without a semicolon.pdf"),
        ('quotes "inside" it.pdf', "quotes _inside_ it.pdf"),
    ]


def test_wrong_types_are_seen_through(read):
    documents = read("document-wrong-types").documents
    assert [(one.name, one.role, one.flags) for one in documents] == [
        ("lebenslauf.docx", Role.CV, ("mismatch",)),
        ("scan.pdf", Role.OTHER, ()),
        ("invoice.pdf", Role.OTHER, ("executable", "mismatch")),
        ("references.zip", Role.OTHER, ("archive", "encrypted")),
    ]


def test_the_cv_among_all_that_mail_programs_put_in(read):
    documents = read("document-noise").documents
    assert [(one.name, one.role) for one in documents] == [
        ("Jane Doe.pdf", Role.CV),
        ("Motivation letter.pdf", Role.COVER_LETTER),
        ("logo.png", Role.INLINE_IMAGE),
        ("document.ics", Role.CALENDAR),
        ("jane.vcf", Role.OTHER),
        ("smime.p7s", Role.SIGNATURE),
        ("earlier.msg", Role.OTHER),
        ("Certificate.pdf", Role.OTHER),
    ]
    assert all(one.why for one in documents)


def test_damaged_base64(read):
    parsed = read("mime-base64-damaged")
    assert {one.name: one.content for one in parsed.documents} == {
        "no padding.pdf": PDF + b"%",
        **dict.fromkeys(["stray.pdf", "footer.pdf", "pushed.pdf", "pieces.pdf"], PDF),
    }
    assert parsed.text == "I apply for the job.\nThis was never base64, whatever it says."
    assert len(parsed.warnings) == 5


def test_quoted_printable(read):
    parsed = read("mime-quoted-printable")
    assert parsed.text is not None and "soft broken, one with blanks after the sign and 100=% of" in parsed.text
    assert parsed.documents[0].content == PDF.replace(b"\n", b"\r\n")


def test_yenc_is_left_alone(read):
    parsed = read("mime-yenc")
    assert parsed.documents == () and parsed.text is not None and "=ybegin" in parsed.text
    assert "yEnc" in parsed.warnings[0]


def test_a_part_elsewhere_is_not_fetched(read):
    parsed = read("document-external")
    assert parsed.documents[0].claimed_type == "message/external-body" and "elsewhere" in parsed.warnings[0]


def test_a_bounce(read):
    parsed = read("forwarded-bounce")
    assert parsed.id_problem is HeldReason.NO_APPLICANT_ID
    assert [(one.name, one.claimed_type) for one in parsed.documents] == [
        ("document.txt", "message/delivery-status"),
        ("document-2.txt", "text/rfc822-headers"),
    ]
    assert b"Status: 5.1.1" in parsed.documents[0].content


def test_unpacked_documents_say_where_they_were(read):
    inside = {name: [one.inside for one in read(name).documents] for name in ("tnef-cv", "signed-smime-opaque")}
    assert inside == {"tnef-cv": ["winmail.dat", None], "signed-smime-opaque": ["smime.p7m", None]}
    assert read("tnef-cv").documents[0].name == "Jane Döe CV.pdf"
    assert [one.inside for one in read("forwarded-by-a-job-board").documents] == ["document.eml", None]


@pytest.mark.parametrize("name", ["signed-smime-encrypted", "signed-pgp-encrypted"])
def test_what_is_encrypted_is_kept_as_it_is(read, name):
    parsed = read(name)
    assert parsed.applicant_id == 40809300 and parsed.text is None
    assert any("encrypted" in warning for warning in parsed.warnings)
    (locked,) = [one for one in parsed.documents if "encrypted" in one.flags]
    assert locked.role is Role.OTHER and locked.size > 50


def test_a_text_signed_in_place(read):
    parsed = read("signed-pgp-inline")
    assert parsed.text == "I apply.\n-- \nJane\n" and "signed with PGP" in parsed.warnings[0]
