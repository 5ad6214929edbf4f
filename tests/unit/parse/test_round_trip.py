"""Any application written by the standard library's email writer is read back the same, its documents byte for byte."""

from contextlib import suppress
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, EmailPolicy

from hypothesis import given, settings
from hypothesis import strategies as st

from apptrack_ingest.model import Role
from apptrack_ingest.parse.mime import parse


def encoded_once(text: str, charset: str = "utf-8") -> bool:
    """Whether a text cannot be taken for UTF-8 that was encoded twice, or that calls itself something else: that is put
    right, on purpose ("Ã¤" for "ä")."""
    with suppress(UnicodeError):
        return text.isascii() or not text.encode("cp1252" if charset == "utf-8" else charset).decode()
    return True


# What a header can say: no controls, no surrogates, nothing that a reader of encoded words would fold or decode again.
LETTERS = st.characters(
    codec="utf-8", exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"], exclude_characters='=?"\\'
)
WORDS = st.text(LETTERS, min_size=1, max_size=30).filter(encoded_once)
# Several words in ASCII alone: between two encoded words the writer loses a space where it folds (CPython issue 92081).
ASCII = st.text("abcXYZ0189.,;:+#&/()-", min_size=1, max_size=30)
PHRASES = WORDS | st.lists(ASCII, min_size=1, max_size=4).map(" ".join)
FILE_NAMES = st.lists(WORDS, min_size=1, max_size=4).map(" ".join).filter(encoded_once)
# Quotes around a name, and an address in its place, are no part of it; and the writer forgets to quote specials in a name
# that it folds (CPython issue 87720).
UNSPEAKABLE = dict.fromkeys(map(ord, "'@.,;:()<>[]"))
PEOPLE = PHRASES.map(lambda name: " ".join(name.translate(UNSPEAKABLE).split())).filter(bool).filter(encoded_once)
NAMES = st.one_of(
    FILE_NAMES, st.sampled_from(["a;b.pdf", "Jane's CV (1).pdf", "50%.pdf", "%41.pdf", "a'b''c.doc", "x" * 150])
)
# By charset the letters of a text in it; the writer chooses the transfer encoding, or is told.
ALPHABETS = {
    "utf-8": st.characters(codec="utf-8", exclude_characters="\0\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e\ufeff"),
    "iso-8859-15": st.sampled_from("abc äöüÄÖÜß€Šœ .,\n-="),
    "windows-1252": st.sampled_from("abc éèñ€“”–… .,\n="),
    "koi8-r": st.sampled_from("абвгдеёж яЮЖ .,\nx="),
    "windows-1251": st.sampled_from("абвгдеёж яЮЖ «»№ .,\n"),
    "iso-8859-2": st.sampled_from("abc łóżźćęąśřčě .,\n"),
    "shift_jis": st.sampled_from("履歴書日本語の職務 ABC、。\n"),
    "euc-jp": st.sampled_from("履歴書日本語の職務 ABC、。\n"),
    "iso-2022-jp": st.sampled_from("履歴書日本語の職務 ABC、。\n"),
    "gb18030": st.sampled_from("简历申请工作 abc，。\n"),
    "big5": st.sampled_from("履歷申請工作 abc，。\n"),
    "euc-kr": st.sampled_from("이력서지원 abc.\n"),
}
CHARSETS = st.sampled_from(sorted(ALPHABETS))
TEXTS = CHARSETS.flatmap(lambda name: st.tuples(st.text(ALPHABETS[name], max_size=300), st.just(name))).filter(
    lambda pair: encoded_once(*pair)
)
CTES = st.sampled_from([None, "base64", "quoted-printable"])
FILES = st.tuples(
    NAMES, st.sampled_from(["application/pdf", "application/octet-stream", "image/png"]), st.binary(max_size=600)
)
POLICIES = st.sampled_from([SMTP, SMTPUTF8, SMTP.clone(linesep="\n"), SMTP.clone(max_line_length=900)])


@dataclass(frozen=True)
class Letter:
    """An application to write: its texts with their charsets and transfer encodings, its files and what its HTML shows."""

    subject: str = "Applying"
    candidate: str = "Jane Doe"
    reference: str = "VAC-1"
    text: tuple[str, str] = ("I apply.\n", "utf-8")
    html: tuple[str, str] | None = None
    cte: str | None = None
    shown: list[bytes] = field(default_factory=list)
    files: list[tuple[str, str, bytes]] = field(default_factory=list)
    attached: "list[Letter]" = field(default_factory=list)

    def written(self, policy: EmailPolicy = SMTP, with_id: bool = True) -> EmailMessage:
        mail = EmailMessage(policy=policy)
        if with_id:
            mail["X-iTrackID"], mail["X-iTrackID-ClientReference"] = "40809300", self.reference
        mail["From"] = Address(self.candidate, "jane.doe", "example.org")
        mail["Subject"] = self.subject
        mail.set_content(self.text[0], charset=self.text[1], cte=self.cte)
        if self.html is not None:
            mail.add_alternative(self.html[0], subtype="html", charset=self.html[1], cte=self.cte)
            for number, content in enumerate(self.shown):
                mail.get_payload()[1].add_related(content, "image", "png", cid=f"<{number}@x>")
        for name, kind, content in self.files:
            main, sub = kind.split("/")
            mail.add_attachment(content, maintype=main, subtype=sub, filename=name)
        for inner in self.attached:
            mail.add_attachment(inner.written(policy, with_id=False))
        return mail


LETTERS_IN = st.builds(Letter, text=TEXTS, files=st.lists(FILES, max_size=2))
LETTERS_OUT = st.builds(
    Letter,
    subject=PHRASES,
    candidate=PEOPLE,
    reference=PHRASES,
    text=TEXTS,
    html=st.none() | TEXTS,
    cte=CTES,
    shown=st.lists(st.binary(max_size=200).map(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".__add__), max_size=2),
    files=st.lists(FILES, max_size=4),
    attached=st.lists(LETTERS_IN, max_size=2),
)


def same_words(found: str | None, written: str) -> bool:
    """The writer ends each text with a line end, and a text of white space alone says nothing."""
    return (found or "").rstrip("\n") == (written.rstrip("\n") if written.strip() else "")


@settings(deadline=None)
@given(LETTERS_OUT, POLICIES)
def test_an_application_comes_back(letter, policy):
    parsed = parse(letter.written(policy).as_bytes())
    assert (parsed.applicant_id, parsed.client_reference) == (40809300, letter.reference)
    assert (parsed.candidate.name, parsed.candidate.email) == (letter.candidate, "jane.doe@example.org")
    assert parsed.subject == letter.subject
    assert same_words(parsed.text, letter.text[0]) and same_words(parsed.html, letter.html[0] if letter.html else "")
    own = [one for one in parsed.documents if one.inside is None and one.claimed_type != "message/rfc822"]
    shown = [content for content in letter.shown if letter.html is not None]
    assert sorted(one.content for one in own if one.original_name is None) == sorted(shown)
    assert all(one.role is Role.INLINE_IMAGE for one in own if one.original_name is None)
    assert sorted((one.original_name, one.claimed_type, one.content) for one in own if one.original_name) == sorted(
        letter.files
    )
    mails = [one for one in parsed.documents if one.claimed_type == "message/rfc822"]
    assert len(mails) == len(letter.attached)
    within = sorted((one.original_name, one.content) for one in parsed.documents if one.inside is not None)
    assert within == sorted((name, content) for inner in letter.attached for name, _, content in inner.files)
    assert not [warning for warning in parsed.warnings if "encrypted" not in warning]


@settings(deadline=None)
@given(st.lists(FILES, min_size=1, max_size=3), st.booleans())
def test_a_forwarded_application_comes_back_out_of_its_wrapper(files, twice):
    raw = Letter(files=files).written().as_bytes()
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
