"""Documents: their types, their roles, and the likely CV first."""

import io
import zipfile
from dataclasses import replace

import pytest

from apptrack_ingest.model import Role
from apptrack_ingest.parse.documents import FORWARDING_MAIL, Attachment, to_documents, without_extensions
from apptrack_ingest.parse.sniff import sniff

PDF = b"%PDF-1.4\n"
OLE = bytes.fromhex("d0cf11e0a1b11ae1")
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
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
        (OLE + bytes(600), "application/x-ole-storage"),
        (OLE + bytes(600) + "WordDocument".encode("utf-16-le"), "application/msword"),
        (OLE + bytes(600) + "__nameid_version1.0".encode("utf-16-le"), "application/vnd.ms-outlook"),
        (b"\xef\xbb\xbf\r\n%PDF-1.7", "application/pdf"),
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
    ("one", "role", "why"),
    [
        (attachment("cv.png", PNG, "image/png", "inline"), Role.INLINE_IMAGE, "an image shown in the body"),
        (attachment(None, PNG, "image/png", None, cid=True), Role.INLINE_IMAGE, "an image shown in the body"),
        (
            attachment("smime.p7s", b"x", "application/pkcs7-signature"),
            Role.SIGNATURE,
            "a cryptographic signature or key",
        ),
        (attachment("invite.ics", b"BEGIN:VCALENDAR", "text/calendar"), Role.CALENDAR, "a calendar entry"),
        (attachment("cv.vcf", b"BEGIN:VCARD", "text/vcard"), Role.OTHER, "a business card"),
        (attachment("winmail.dat", b"\x78\x9f\x3e\x22"), Role.OTHER, "Outlook's container winmail.dat"),
        (attachment("cv", b"From: a@b.c\n\n", "message/rfc822"), Role.OTHER, "a mail attached to the mail"),
        (
            attachment("cv", b"Action: failed", "message/delivery-status"),
            Role.OTHER,
            "what a mail server says of a mail",
        ),
        (
            attachment("cv.msg", OLE + bytes(600), "application/vnd.ms-outlook"),
            Role.OTHER,
            "a mail saved by Outlook, kept as it is",
        ),
        (attachment("cv.pdf.exe", b"MZ" + bytes(60)), Role.OTHER, "a program"),
        (attachment("cv.js", b"var cv", "text/plain"), Role.OTHER, "a program"),
        (
            attachment("cv.asc", b"-----BEGIN PGP MESSAGE-----\n"),
            Role.OTHER,
            "encrypted: only who has the key can read it",
        ),
    ],
)
def test_what_is_never_a_cv(one, role, why):
    (document,) = to_documents([one])
    assert (document.role, document.why) == (role, why)


def test_a_cv_with_a_password_is_still_the_cv():
    locked = OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    (document,) = to_documents([attachment("cv.docx", locked)])
    assert document.role is Role.CV and "encrypted" in document.flags


def test_a_cv_in_an_attached_mail_is_found_but_comes_after_this_mails_own():
    mail = attachment("fwd.eml", b"From: a@b.c\n\n", "message/rfc822")
    inner = replace(attachment("jane.pdf", PDF + b"x" * 99), inside=mail, nested=True)
    assert [(one.name, one.role, one.inside) for one in to_documents([mail, inner])] == [
        ("jane.pdf", Role.CV, "fwd.eml"),
        ("fwd.eml", Role.OTHER, None),
    ]
    first, *_ = to_documents([mail, inner, attachment("doe.pdf")])
    assert (first.name, first.role) == ("doe.pdf", Role.CV)


@pytest.mark.parametrize(
    ("one", "flags"),
    [
        (attachment("a.pdf", PDF, "application/pdf"), ()),
        (attachment("a.zip", b"PK\x03\x04\x14\x00\x00\x00" + bytes(30), "application/zip"), ("archive",)),
        (
            attachment("a.zip", b"PK\x03\x04\x14\x00\x01\x00" + bytes(30), "application/zip"),
            ("archive", "encrypted"),
        ),
        (attachment("a.exe", b"MZ" + bytes(60)), ("executable",)),
        (attachment("run", b"#!/bin/sh\n", "text/plain"), ("executable",)),
        (attachment("a.scr", b"text", "text/plain"), ("executable",)),
        (attachment("a.jpg", PDF, "image/jpg"), ("mismatch",)),
        (attachment("a.jpg", b"\xff\xd8\xff\xe0" + bytes(9), "image/jpg"), ()),
        (attachment("a.doc", rb"{\rtf1 a}", "application/msword"), ()),
        (attachment("a.xls", OLE + bytes(600), "application/vnd.ms-excel"), ()),
        (attachment("a.tar.gz", b"\x1f\x8b\x08" + bytes(9), "application/x-gzip"), ("archive",)),
    ],
)
def test_flags(one, flags):
    assert to_documents([one])[0].flags == flags


def test_a_docx_called_a_picture_is_the_cv_all_the_same():
    (document,) = to_documents([attachment("scan", docx(), "image/jpg")])
    assert document.role is Role.CV and document.flags == ("mismatch",)
    assert document.sniffed_type == DOCX


def test_blocked_extensions_are_left_out_and_the_next_likeliest_is_the_cv():
    documents = to_documents([attachment("CV.JPG", b"\xff\xd8\xff\xe0", "image/jpeg"), attachment("jane doe.pdf")])
    assert [one.role for one in documents] == [Role.CV, Role.OTHER]
    kept, warnings = without_extensions(documents, {"jpg", "gif"})
    assert [(one.name, one.role) for one in kept] == [("jane doe.pdf", Role.CV)]
    assert warnings == ("document 'CV.JPG' was left out: its extension is blocked",)


def test_judged_anew_what_came_in_another_mail_stays_behind():
    mail = attachment("fwd.eml", b"From: a@b.c\n\n", "application/octet-stream")
    winmail = replace(attachment("winmail.dat", b"x", "application/ms-tnef"), inside=mail, nested=True)
    deep = replace(attachment("deep.pdf", PDF + bytes(99)), inside=winmail, nested=True)
    beside = replace(attachment("beside.pdf", PDF + bytes(50)), inside=FORWARDING_MAIL, nested=True)
    all_of_them = to_documents(
        [attachment("cv.jpg", b"\xff\xd8\xff"), mail, winmail, deep, beside, attachment("own.txt", b"x")]
    )
    kept, _ = without_extensions(all_of_them, {"jpg"})
    assert [one.name for one in kept if one.role is Role.CV] == ["own.txt"]


def test_judged_anew_what_may_be_text_is_still_no_cv():
    unclear = replace(attachment("part.bin", b"<p>"), also_text=True)
    kept, _ = without_extensions(to_documents([attachment("cv.jpg", b"\xff\xd8\xff"), unclear]), {"jpg"})
    assert [one.role for one in kept] == [Role.OTHER]


def test_nothing_blocked_changes_nothing():
    documents = to_documents([attachment("cv.pdf"), attachment("x.png", PNG)])
    assert without_extensions(documents, {"gif"}) == (documents, ())


@pytest.mark.parametrize(
    ("name", "hint", "expected"),
    [
        ("C:TEMPcv.pdf", r"C:\TEMP\cv.pdf", "cv.pdf"),
        (None, "Jane Doe.pdf", "Jane Doe.pdf"),
        ("cv.pdf", "something.doc", "cv.pdf"),
    ],
)
def test_what_a_name_can_be_made_of_besides(name, hint, expected):
    (document,) = to_documents([replace(attachment(name), hint=hint)])
    assert (document.name, document.original_name) == (expected, name)


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
