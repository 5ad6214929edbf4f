"""The candidate's name and address: never AppTrack's placeholder, never a system's address."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.model import Candidate, Hint
from apptrack_ingest.parse.candidate import find_candidate, is_system_address, sender_address


def find(sender: bytes | None, reply_to: bytes | None = None) -> Candidate:
    fields = [(b"FROM", sender)] if sender is not None else []
    fields += [(b"reply-to", reply_to)] if reply_to is not None else []
    return find_candidate(fields)[0]


@pytest.mark.parametrize(
    ("sender", "name", "email"),
    [
        (b"Jane Doe <jane@example.org>", "Jane Doe", "jane@example.org"),
        (b"jane@example.org (Jane Doe)", "Jane Doe", "jane@example.org"),
        (b"No_name <jane@example.org>", None, "jane@example.org"),
        (b'"NO_NAME" <jane@example.org>', None, "jane@example.org"),
        (b'"jane@example.org" <jane@example.org>', None, "jane@example.org"),
        (b"'Jane@example.org' <jane@example.org>", None, "jane@example.org"),
        (b'"other@example.net" <jane@example.org>', None, "jane@example.org"),
        (b"<jane@example.org>", None, "jane@example.org"),
        (b"=?utf-8?b?SsO8cmdlbg==?=\r\n =?utf-8?q?_M=C3=BCller?= <j@example.org>", "Jürgen Müller", "j@example.org"),
        (b'"=?utf-8?q?J=C3=BCrgen?=" <j@example.org>', "Jürgen", "j@example.org"),  # against RFC 2047, but seen
        ("Jürgen <j@example.org>".encode(), "Jürgen", "j@example.org"),
        (b"Jos\xe9 <j@example.org>", "José", "j@example.org"),
        (b"Smith, Jane <jane@example.org>", "Smith, Jane", "jane@example.org"),
        (b'"Smith, Jane" <jane@example.org>', "Smith, Jane", "jane@example.org"),
        (b"a@example.org, b@example.org", None, "a@example.org"),
        (b"=?utf-8?b?SsO8c?= <j@example.org>", "Jü", "j@example.org"),  # cut base64: what is left of it, with a warning
        (b"Jane Doe jane@example.org", "Jane Doe", "jane@example.org"),
        (b"noreply@board.example, Jane <jane@example.org>", "Jane", "jane@example.org"),
        (b"=?utf-8?q?J=C3?= =?utf-8?q?=BCrgen?= <j@example.org>", "Jürgen", "j@example.org"),
    ],
)
def test_from(sender, name, email):
    assert find(sender) == Candidate(name, email, "From")


@pytest.mark.parametrize(
    "sender",
    [
        b"no-reply@board.example",
        b"NoReply+17@board.example",
        b"do_not_reply@board.example",
        b"MAILER-DAEMON@mx.example",
        b"bounces+4711@mx.example",
        b"postmaster@mx.example",
        b"apply-312756448-1000846@at.idibu.com",
        b"Name.xxxxxxxxxxx@idibu.aptrack.co.uk",
        b"",
        b"undisclosed",
        None,
    ],
)
def test_reply_to_stands_in_for_a_system_address(sender):
    assert find(sender, b'"Smith, Pat" <pat@example.org>') == Candidate("Smith, Pat", "pat@example.org", "Reply-To")


def test_a_persons_from_goes_before_reply_to():
    assert find(b"Jane <jane@example.org>", b"pat@example.org").email == "jane@example.org"


def test_a_name_beside_a_system_address_is_only_a_hint():
    hints = (Hint("name", "Jane Doe", "From"),)
    assert find(b"Jane Doe <noreply@board.example>") == Candidate(hints=hints)
    assert find(b"Jane Doe <noreply@board.example>", b"j@example.org") == Candidate(
        None, "j@example.org", "Reply-To", hints
    )


def test_two_system_addresses_are_no_candidate_and_a_warning():
    candidate, warnings = find_candidate([(b"From", b"noreply@a.example"), (b"Reply-To", b"bounce-1@b.example")])
    assert candidate == Candidate() and "no address of the candidate" in warnings[-1]


@pytest.mark.parametrize(
    "address", ["noreen@example.org", "post.master@idibu.com.example.org", "jane@notidibu.com", "bouncer99@x.org"]
)
def test_persons_with_unlucky_addresses(address):
    assert is_system_address(address) is (address.startswith("post"))


@pytest.mark.parametrize(
    "sender", [b"Jane <jane doe@x.org>", b"Jane <jos\xe9@x.org>", b"Jane <a\x00b@x.org>", b"<root>"]
)
def test_an_address_is_never_guessed(sender):
    assert find(sender).email is None
    assert find(sender, b"pat@example.org").email == "pat@example.org"


@pytest.mark.parametrize(
    ("sender", "warning"),
    [
        (
            b"Jane Doe jane@x.org",
            "From is not written by the rules; its names and addresses were read as well as possible",
        ),
        (b"a@x.org, b@x.org", "From names more than one address; the first that is a person's was taken"),
        (b"=?x-none?q?Jane?= <j@x.org>", "From holds bytes of no certain charset; they were read as well as possible"),
    ],
)
def test_what_was_repaired_is_told(sender, warning):
    assert find_candidate([(b"From", sender)])[1] == (warning,)


def test_the_senders_address_is_the_first_as_it_stands():
    assert sender_address([(b"From", b"noreply@board.example, jane@x.org")]) == "noreply@board.example"
    assert sender_address([(b"From", b"<root>")]) == "root"
    assert sender_address([(b"From", b"nobody")]) == sender_address([]) == ""


def test_the_from_header_that_names_a_person_is_read():
    candidate, warnings = find_candidate([(b"From", b"noreply@a.example"), (b"From", b"b@example.org")])
    assert candidate.email == "b@example.org" and "more than once" in warnings[0]


def test_several_from_headers_are_worth_a_warning():
    candidate, warnings = find_candidate([(b"From", b"a@example.org"), (b"From", b"b@example.org")])
    assert candidate.email == "a@example.org" and "more than once" in warnings[0]


def test_nothing_of_the_candidate_is_logged(caplog):
    with caplog.at_level(logging.DEBUG):
        find(b"=?shift_jis?b?Secret?= <secret@example.org>, \xe9\xff <x")
    assert "ecret" not in caplog.text


@given(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"<", b">", b"@", b'"', b"(", b",", b"a", b"=?utf-8?q?x?=", b":"])),
)
def test_any_from_gives_clean_text_or_nothing(noise, pieces):
    for value in (noise, b"".join(pieces), b"".join(pieces) + b" <jane@example.org>"):
        candidate = find(value)
        for text in (candidate.name, candidate.email):
            assert text is None or (text and text.encode() and "\n" not in text and "\x00" not in text)
