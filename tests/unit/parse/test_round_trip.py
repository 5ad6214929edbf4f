"""Any application written by the standard library's email writer is read back the same, its documents byte for byte."""

from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.parse import parse

# What a header can say: no controls, no surrogates, nothing that a reader of encoded words would fold or decode again.
WORDS = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"], exclude_characters='=?"\\'
    ),
    min_size=1,
    max_size=30,
)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e\ufeff"), max_size=300
)
DOCUMENTS = st.tuples(
    WORDS, st.sampled_from(["application/pdf", "application/octet-stream", "image/png"]), st.binary(max_size=600)
)


def written(subject, text, html, documents) -> bytes:
    mail = EmailMessage(policy=SMTP)
    mail["X-iTrackID"] = "40809300"
    mail["From"] = Address("Jane Doe", "jane.doe", "example.org")
    mail["Subject"] = subject
    mail.set_content(text, charset="utf-8")
    if html is not None:
        mail.add_alternative(html, subtype="html", charset="utf-8")
    for name, kind, content in documents:
        main, sub = kind.split("/")
        mail.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return mail.as_bytes()


@given(WORDS, TEXTS, st.none() | TEXTS, st.lists(DOCUMENTS, max_size=4))
def test_an_application_comes_back(subject, text, html, documents):
    parsed = parse(written(subject, text, html, documents))
    assert parsed.applicant_id == 40809300 and parsed.candidate.email == "jane.doe@example.org"
    assert parsed.subject == subject
    assert (parsed.text or "").rstrip("\n") == (text.rstrip("\n") if text.strip() else "")
    assert (parsed.html or "").rstrip("\n") == ((html or "").rstrip("\n") if (html or "").strip() else "")
    found = sorted((one.original_name, one.claimed_type, one.content) for one in parsed.documents)
    assert found == sorted(documents)
    assert not [warning for warning in parsed.warnings if "encrypted" not in warning]


@given(st.lists(DOCUMENTS, min_size=1, max_size=3), st.booleans())
def test_a_forwarded_application_comes_back_out_of_its_wrapper(documents, twice):
    raw = written("Applying", "I apply.\n", None, documents)
    outer = raw
    for _ in range(1 + twice):
        wrapper = (
            b'Subject: FW\r\nContent-Type: multipart/mixed; boundary="wrap%d"\r\n\r\n--wrap%d\r\n'
            b"Content-Type: message/rfc822\r\n\r\n%s\r\n--wrap%d--\r\n"
        )
        outer = wrapper % (len(outer), len(outer), outer, len(outer))
    parsed, direct = parse(outer), parse(raw)
    assert parsed.unwrapped and parsed.content_digest == direct.content_digest
    assert parsed.documents == direct.documents and parsed.text == direct.text
