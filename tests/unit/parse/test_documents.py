"""Documents: their types, their roles, and the likely CV first."""

import io
import zipfile

import pytest

from apptrack_ingest.model import Role
from apptrack_ingest.parse.documents import Attachment, sniff, to_documents

PDF = b"%PDF-1.4\n"
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452")


def attachment(name=None, content=PDF, claimed="application/octet-stream", disposition="attachment", cid=False):
    return Attachment(name, claimed, disposition, cid, content)


def roles(*attachments):
    return [(document.name, document.role) for document in to_documents(attachments)]


def docx() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("_rels/.rels", "<Relationships/>")
        archive.writestr("word/document.xml", "<document/>")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PDF, "application/pdf"),
        (PNG, "image/png"),
        (rb"{\rtf1 a}", "application/rtf"),
        (docx(), "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (b"plain words", None),
        (b"BMW sales executive since 2015", None),
        (b"MZ Consulting, CWS, BZh", None),
        (b"BM" + bytes(52), "image/bmp"),
        (b"", None),
    ],
)
def test_sniff(content, expected):
    assert sniff(content) == expected


@pytest.mark.parametrize(
    "name",
    [
        "cv.pdf",
        "JaneDoeCV.pdf",
        "CV_Jane.doc",
        "cv2025.txt",
        "My Résumé.docx",
        "Lebenslauf Müller.pdf",
        "Curriculum.odt",
    ],
)
def test_a_name_that_says_cv(name):
    (document,) = to_documents([attachment(name)])
    assert document.role is Role.CV and document.why == "its name says so"


@pytest.mark.parametrize(
    "name", ["Cover Letter.pdf", "coverletter-jane.doc", "Anschreiben.pdf", "motivation_letter.pdf"]
)
def test_a_name_that_says_cover_letter(name):
    (document,) = to_documents([attachment(name)])
    assert document.role is Role.COVER_LETTER


@pytest.mark.parametrize("name", ["recovery.pdf", "discover.pdf", "CVS-report-acv.pdf"])
def test_parts_of_words_tell_nothing(name):
    (document,) = to_documents([attachment(name), attachment("cv.pdf", b"%PDF-1.4 other")])[1:]
    assert document.role is (Role.CV if name.startswith("CVS") else Role.OTHER)


def test_the_only_document_is_the_cv_even_without_a_name():
    (document,) = to_documents([attachment(None, claimed="application/pdf")])
    assert (document.name, document.role, document.why) == ("document.pdf", Role.CV, "the only document")
    assert document.original_name is None and document.sniffed_type == "application/pdf"


def test_cv_first_then_cover_letter_then_the_rest():
    found = roles(
        attachment("logo.png", PNG), attachment("cover letter.pdf"), attachment("zeugnis.pdf"), attachment("cv.pdf")
    )
    assert found == [
        ("cv.pdf", Role.CV),
        ("cover letter.pdf", Role.COVER_LETTER),
        ("logo.png", Role.OTHER),
        ("zeugnis.pdf", Role.OTHER),
    ]


def test_without_a_telling_name_type_and_size_decide():
    found = roles(attachment("a.txt", b"x" * 999), attachment("b.pdf", PDF), attachment("c.pdf", PDF + b"x" * 99))
    assert found[0] == ("c.pdf", Role.CV)
    assert {role for _, role in found[1:]} == {Role.OTHER}


def test_a_certificate_is_the_cv_only_where_nothing_else_can_be():
    assert roles(attachment("certificate.pdf", PDF * 9), attachment("jane.pdf"))[0] == ("jane.pdf", Role.CV)
    assert roles(attachment("certificate.pdf"))[0] == ("certificate.pdf", Role.CV)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (attachment("cv.png", PNG, "image/png", "inline"), "an image shown in the body"),
        (attachment(None, PNG, "image/png", None, cid=True), "an image shown in the body"),
        (attachment("smime.p7s", b"x", "application/pkcs7-signature"), "a cryptographic signature or key"),
        (attachment("invite.ics", b"BEGIN:VCALENDAR", "text/calendar"), "a calendar entry"),
        (attachment("cv.vcf", b"BEGIN:VCARD", "text/vcard"), "a business card"),
        (attachment("winmail.dat", b"\x78\x9f\x3e\x22"), "Outlook's container winmail.dat, not unpacked"),
        (attachment("cv", b"From: a@b.c\n\n", "message/rfc822"), "a mail attached to the mail"),
    ],
)
def test_what_is_never_a_cv(one, why):
    (document,) = to_documents([one])
    assert (document.role, document.why) == (Role.OTHER, why)


def test_a_scanned_cv_attached_as_an_image_is_one():
    assert roles(attachment("cv.jpg", b"\xff\xd8\xff\xe0", "image/jpeg")) == [("cv.jpg", Role.CV)]


def test_an_inline_pdf_is_a_document_like_any_other():
    assert roles(attachment("scan.pdf", disposition="inline", cid=True)) == [("scan.pdf", Role.CV)]


def test_the_first_bytes_go_before_a_wrong_claim():
    (document,) = to_documents([attachment("scan.dat", PDF, "image/png", "inline")])
    assert document.role is Role.CV and document.claimed_type == "image/png"


def test_size_and_hash_are_of_the_content():
    (document,) = to_documents([attachment("cv.pdf", b"abc")])
    assert document.size == 3
    assert document.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_text_that_begins_like_a_picture_is_still_the_cv():
    (document,) = to_documents([attachment("Jane Doe.txt", b"BMW sales executive", "text/plain")])
    assert (document.role, document.sniffed_type) == (Role.CV, None)
