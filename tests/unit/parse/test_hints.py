"""Hints on the candidate: what a person would see in the mail, with where it stands, and nothing of anybody else's."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.model import Candidate, Hint
from apptrack_ingest.parse.headers import header_block, scan_header_block
from apptrack_ingest.parse.hints import lines_of, with_hints
from apptrack_ingest.parse.labels import _KINDS, labelled
from apptrack_ingest.parse.mime import parse


def hints_of(text: str | None = None, html: str | None = None, subject: str | None = None) -> list[tuple[str, str]]:
    found = with_hints(Candidate(), [], subject, text, html).hints
    return [(hint.kind, hint.value) for hint in found]


def in_mail(raw: bytes) -> tuple[Hint, ...]:
    fields = scan_header_block(header_block(raw, 10_000) or b"")
    parsed = parse(raw)
    return with_hints(parsed.candidate, fields, parsed.subject, parsed.text, parsed.html).hints


def test_labels_in_a_job_boards_text(sample):
    assert in_mail(sample("candidate-labels")) == (
        Hint("name", "Job Board", "From"),
        Hint("name", "Jane Doe", "text, line 3 (Name)"),
        Hint("email", "jane.doe@example.org", "text, line 4 (E-Mail-Adresse)"),
        Hint("phone", "+44 (0)7700 900123", "text, line 5 (Mobile)"),
        Hint("address", "1 High Street, Leeds LS1 1AA", "text, line 7 (Address)"),
    )


def test_a_job_boards_table(sample):
    assert in_mail(sample("candidate-table")) == (
        Hint("phone", "0161 496 0000", "html (Phone)"),
        Hint("name", "Jane Doe", "html (First name)"),
        Hint("email", "jane@example.org", "html, a link"),
    )


def test_a_name_in_the_subject(sample):
    assert in_mail(sample("candidate-subject")) == (Hint("name", "Jane van der Berg", "Subject"),)


def test_a_signature(sample):
    assert in_mail(sample("candidate-signature")) == (
        Hint("email", "jd@work.example", "text, line 6"),
        Hint("phone", "(212) 555-0123", "text, line 6"),
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Tel.: 030 123456", ("phone", "Tel.", "030 123456")),
        ("  * Téléphone portable : 06 12 34 56 78", ("phone", "Téléphone portable", "06 12 34 56 78")),
        ("**Name:** Jane Doe", ("name", "Name", "Jane Doe")),
        ("Phone\t0161 496 0000", ("phone", "Phone", "0161 496 0000")),
        ("Candidate's name = Jane", ("name", "Candidate's name", "Jane")),
        ("Imię i nazwisko: Jan", ("name", "Imię i nazwisko", "Jan")),
        ("Vorname:", ("first name", "Vorname", "")),
        ("Dear Sir: phone me", None),
        ("Job title: Cook", None),
        (": x", None),
        ("no label at all", None),
    ],
)
def test_labels(line, expected):
    assert labelled(line) == expected


def spelled(label: str) -> list[str]:
    """A label as forms and letters have it, with everything between its words but letters."""
    plain = [label, label.upper(), label.title(), f"  • {label} **", f"{label.replace(' ', '-')} 2", f"**{label}_"]
    return [*plain, f"{label[0]}'{label[1:]}", f"{label[:2]}’{label[2:]}", label.replace(" ", "’ ")]


@pytest.mark.parametrize(("label", "kind"), _KINDS.items())
def test_every_label_is_known_however_it_is_spelled(label, kind):
    for line in spelled(label):
        found = labelled(f"{line}: Jane 0161 496 0000")
        assert found is not None and (found[0], found[2]) == (kind, "Jane 0161 496 0000"), line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call +49 (0)30 / 123-456 now", ["+49 (0)30 / 123-456"]),
        ("0161 496 0000 or 0044 161 496 0000", ["0161 496 0000"]),  # the same twice
        ("(212) 555-0123", ["(212) 555-0123"]),
        ("Phone: 496 0000", ["496 0000"]),  # short, but it has a label
        ("496 0000", []),
        ("born 01.02.1990 or 1990-02-01", []),
        ("Phone: 01.02.1990", []),
        ("salary 45.000 - 50.000, card 4111 1111 1111 1111", []),
        ("https://board.example/a/0161496000099 ref JO-1502-428583", []),
        ("mail0161496000012@x.example", []),
        ("0161 496 00001234567890", []),
    ],
)
def test_phone_numbers(text, expected):
    assert [value for kind, value in hints_of(text) if kind == "phone"] == expected


def test_of_a_long_line_its_beginning_is_read_as_if_it_ended_there():
    assert hints_of("x" * 985 + " 0161 496 00001234567890") == [("phone", "0161 496 00001")]


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("Application from Jane Doe", "Jane Doe"),
        ("Fwd: CV from Jane O'Neill - Cook", "Jane O'Neill"),
        ("Bewerbung von Jürgen Müller als Koch", "Jürgen Müller"),
        ("Jane Doe has applied for Cook", "Jane Doe"),
        ("Application for Cook", None),
        ("Application from 12 34", None),
    ],
)
def test_names_in_subjects(subject, expected):
    assert hints_of(subject=subject) == ([("name", expected)] if expected else [])


def test_nobody_elses_address_is_a_hint():
    fields = [
        (b"From", b"noreply@board.example"),
        (b"To", b"Kara <karas@example.com>"),
        (b"Cc", b"joe@example.com"),
        (b"X-iTrackID-ClientSettings-Name", b"Kim (kim@example.com)"),
    ]
    text = (
        "KaraS@example.com joe@example.com kim@example.com no-reply@x.example help@board.example 1@at.idibu.com j@x.org"
    )
    assert with_hints(Candidate(), fields, None, text, None).hints == (Hint("email", "j@x.org", "text, line 1"),)


def test_what_is_known_already_is_no_hint():
    known = Candidate("Jane Doe", "jane@example.org", "From", (Hint("phone", "+44 161 496 0000", "text"),))
    text = "Name: JANE DOE\nEmail: Jane@example.org\nPhone: 0161 496 0000"
    assert with_hints(known, [], None, text, None) == known


def test_the_same_in_text_and_html_is_one_hint():
    assert hints_of("Email: j@x.org", "<p>Email: <b>J@x.org</b></p>") == [("email", "j@x.org")]


def test_there_are_never_more_hints_than_a_person_reads():
    assert len(hints_of("\n".join(f"user{number}@x.org" for number in range(1000)))) == 20


def test_html_as_lines():
    html = "<style>p{}</style><p>a<br>b &amp; <b>c</b></p><script>x<y</script ><!-- d --><td>e</td><td>f\ng</td></tr><!-- h"
    assert lines_of(html) == ["a", "b & c", "e\tf g"]


def test_letters_that_only_look_like_a_silent_tags_cost_no_mail():
    """A regular expression that ignores case takes them for an s and an i, and no tag of those names is known."""
    html = "a<ſcript>b<tıtle>c<ſtyle>d"
    assert parse(b"Content-Type: text/html; charset=utf-8\n\n" + html.encode()).html == html


@given(
    st.text(max_size=200), st.lists(st.sampled_from([*"<>&;@:=\t\n\"'", "td", "Name", "Phone", "+44", "0161 ", "a.b"]))
)
def test_anything_gives_clean_hints(noise, pieces):
    text = "".join(pieces) + noise
    for hint in with_hints(Candidate(), [], text, text, text).hints:
        assert hint.value.strip() and hint.source and "\n" not in hint.value
        assert hint.kind in {"name", "email", "phone", "address"}


@pytest.mark.parametrize(
    "unit",
    [
        *("a@", "a.", "1", "1 ", " ", "\n", "name:\n", "0161 496 0000\n", "a", "<", "<a ", "<!--", "<script></script>"),
        *('href="mailto:', "&", "(", "New ", "Name\t", "<td>", "+", "a:b=", "cv from A "),
    ],
)
def test_a_hostile_body_is_read_in_a_moment(unit):
    text = unit * (1_000_000 // len(unit))
    started = time.thread_time()
    with_hints(Candidate(), [], text, text, text)
    assert time.thread_time() - started < 3
