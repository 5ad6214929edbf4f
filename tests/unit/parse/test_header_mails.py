"""Small mails, one for each thing that goes wrong with headers and texts (tests/mails/README.md says what each shows)."""

from collections.abc import Callable

import pytest

from apptrack_ingest.model import Parsed
from apptrack_ingest.parse.mime import parse

Read = Callable[[str], Parsed]


@pytest.fixture
def read(sample) -> Read:
    return lambda name: parse(sample(name))


def words(parsed: Parsed) -> str:
    return "\n".join(parsed.warnings)


@pytest.mark.parametrize(
    ("name", "subject", "candidate", "text"),
    [
        ("header-doubled-line-ends", "through nullmailer", "Jane Doe", "First line.\nSecond line."),
        ("header-byte-order-mark", "saved as a text file", "Jane Doe", None),
        ("header-mbox-line", "out of a mailbox", "Jane Doe", None),
        ("header-nul", "one two", "Jane Doe", "threefour"),
        ("header-space-at-fold", "Büro in Bern", "Jane Doe", None),
        ("header-words-cut", "Bewerbung für Köln", "Jürgen", None),
        ("header-base64-cut", "Bewerbung für Köln", "Jane Doe", None),
        ("header-encoded-twice", "Café", "José", None),
        ("header-undeclared-japanese", "応募の件", "山田太郎", "よろしく"),
        ("header-raw-cyrillic", "Отклик на вакансию", "Иван Петров", "Добрый день"),
        ("header-raw-beside-words", "España € 100", "José Peña", None),
        ("header-unknown-charset", "Café", "Jane Doe", None),
        ("header-question-marks", "Why not me? Jürgen?", "Jane Doe", None),
        ("header-word-left-open", "=?utf-8?Q?Bewerbung_als_K=C3=B6", "Jane Doe", None),
        ("header-several-from", "twice", "Jane Doe", None),
        ("charset-utf-7", "Jürgen", "Jane Doe", "Grüße aus Köln"),
        ("charset-hz", "中文", "Jane Doe", "中文 text"),
        ("charset-gb18030", "㐂 简历", "朱镕基", "朱镕基 㐂"),
        ("charset-iso-2022-jp", "応募書類", "㈱山田", "① 履歴書"),
        ("charset-windows", "“CV” €", "Jane Doe", "Žluťoučký kůň"),
        ("charset-lie", "Café", "José", "Señor José, 50 €"),
        ("charset-missing", "Café", "Jane Doe", "Grüße"),
        ("charset-unknown", "unknown", "Jane Doe", "Grüße"),
        ("charset-stray-byte", "cut short", "Jane Doe", "Grüße, naïve café und KÃ"),
        ("charset-label-stuck", "stuck", "Jane Doe", "€ 100"),
        ("charset-utf-16", "notepad", "Jane Doe", "Grüße"),
        ("charset-encoded-twice", "twice", "Jane Doe", "Señor José"),
        ("charset-preamble", "preamble", "Jane Doe", "Dear Sir, my CV is below. Grüße, Jane"),
    ],
)
def test_subject_name_and_text(read, name, subject, candidate, text):
    parsed = read(name)
    assert parsed.applicant_id == 40809400
    assert (parsed.subject, parsed.candidate.name) == (subject, candidate)
    assert (parsed.text or "").strip() == (text or "A word to the reader.")


@pytest.mark.parametrize(
    ("name", "candidate", "email", "source"),
    [
        ("address-bare-beside-name", "Jane Doe", "jane@example.org", "From"),
        ("address-group", "Jane Doe", "jane@example.org", "From"),
        ("address-comments", "Jane", "jane@example.org", "From"),
        ("address-quoted-pairs", 'Jane "JD" Doe, (B.Sc.)', "jane@example.org", "From"),
        ("address-comma-unquoted", "Doe, Jane, PhD", "jane@example.org", "From"),
        ("address-specials-in-word", 'Doe, "Jürgen" (B.Sc.)', "j@example.org", "From"),
        ("address-brackets-left-open", "Jane Doe", "jane@example.org", "From"),
        ("address-two-in-from", "Jane Doe", "jane@example.org", "From"),
        ("address-space-inside", None, "jane.doe@example.org", "Reply-To"),
        ("address-eight-bit", None, "jose@example.org", "Reply-To"),
        ("address-invisible", "enaJ", "jane@example.org", "From"),
        ("address-odd-name", "[HR] @Jane; 😀", "jane@example.org", "From"),
        ("address-hidden-second", "Someone", "someone@example.net", "From"),
        ("header-several-from", "Jane Doe", "jane@example.org", "From"),
    ],
)
def test_the_candidate(read, name, candidate, email, source):
    found = read(name).candidate
    assert (found.name, found.email, found.source) == (candidate, email, source)


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("header-doubled-line-ends", "every line end was doubled"),
        ("header-nul", "NUL characters"),
        ("header-encoded-twice", "Subject is damaged or of no certain charset"),
        ("header-undeclared-japanese", "From holds bytes of no certain charset"),
        ("header-raw-cyrillic", "X-iTrackID-Office holds bytes of no certain charset"),
        ("header-word-left-open", "Subject is damaged"),
        ("header-several-from", "From is there more than once"),
        ("charset-lie", "the body's text is damaged or not iso-8859-1 as it says"),
        ("charset-unknown", "damaged or not x-nobody-knows as it says"),
        ("charset-stray-byte", "damaged or not utf-8 as it says"),
        ("charset-encoded-twice", "damaged or not utf-8 as it says"),
        ("charset-preamble", "text before the first part"),
        ("address-bare-beside-name", "From is not written by the rules"),
        ("address-hidden-second", "From is not written by the rules"),
        ("address-two-in-from", "From names more than one address"),
        ("address-space-inside", "From holds no address that can be used"),
        ("address-eight-bit", "From holds no address that can be used"),
    ],
)
def test_what_was_repaired_or_lost_is_told(read, name, warning):
    assert warning in words(read(name))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "header-byte-order-mark",
            "header-mbox-line",
            "header-space-at-fold",
            "header-words-cut",
            "header-base64-cut",
        ),
        *(
            "charset-utf-7",
            "charset-hz",
            "charset-gb18030",
            "charset-iso-2022-jp",
            "charset-windows",
            "charset-missing",
        ),
        *("charset-label-stuck", "charset-utf-16", "charset-html-meta", "address-comments", "address-quoted-pairs"),
    ],
)
def test_what_is_read_for_certain_needs_no_warning(read, name):
    assert read(name).warnings == ()


@pytest.mark.parametrize("name", ["charset-lie", "header-unknown-charset"])
def test_a_reference_in_a_charset_that_is_not_certain_is_left_out(read, name):
    parsed = read(name)
    assert parsed.client_reference is None
    assert "X-iTrackID-ClientReference cannot be decoded for certain" in words(parsed)


def test_a_reference_with_a_nul_is_left_out(read):
    assert read("header-nul").job.reference is None


def test_the_space_at_a_fold_beside_an_encoded_word_stays(read):
    assert read("header-space-at-fold").source.portal_name == "Stellen börse West"


def test_raw_metadata_is_read_in_the_bodys_charset(read):
    assert read("header-raw-cyrillic").owner.office == "Москва"


def test_html_that_names_its_own_charset(read):
    assert "<body>Привет</body>" in (read("charset-html-meta").html or "")


def test_the_document_of_a_mail_with_doubled_line_ends(read):
    assert [document.content for document in read("header-doubled-line-ends").documents] == [b"the CV"]
