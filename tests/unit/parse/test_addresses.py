"""Mailboxes as they are written, whether or not they keep the rules, and none that is only guessed."""

import time
from email.headerregistry import Address
from email.utils import formataddr

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apptrack_ingest.parse import addresses
from apptrack_ingest.parse.addresses import Mailbox, agreed, is_address, read_mailboxes


def read(value: str) -> list[tuple[str | None, str]]:
    return [(mailbox.name, mailbox.address) for mailbox in read_mailboxes(value)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Jane Doe <jane@example.org>", [("Jane Doe", "jane@example.org")]),
        ("Jane<jane@example.org>", [("Jane", "jane@example.org")]),
        ("jane@example.org", [(None, "jane@example.org")]),
        ("jane@example.org (Jane (JD) Doe)", [("Jane (JD) Doe", "jane@example.org")]),
        ("J. Doe <j@x.org>, K. Roe <k@x.org>", [("J. Doe", "j@x.org"), ("K. Roe", "k@x.org")]),
        ("Group: a@b.c, D <d@e.f>;", [(None, "a@b.c"), ("D", "d@e.f")]),
        ("undisclosed-recipients:;", []),
        ('"jane doe"@x.org', [(None, '"jane doe"@x.org')]),
        ("jane@[192.0.2.1]", [(None, "jane@[192.0.2.1]")]),
        ("Jane <jdöe@mächine.example>", [("Jane", "jdöe@mächine.example")]),
        ("<@relay,@other:j@x.org>", [(None, "j@x.org")]),  # a route, RFC 5322, section 4.4
        ("jane@[IPv6:2001:db8::1]", [(None, "jane@[IPv6:2001:db8::1]")]),
        ("Jane <@relay:j@[IPv6:::1]>", [("Jane", "j@[IPv6:::1]")]),
        ("'jane@x.org", [(None, "'jane@x.org")]),  # an apostrophe is a letter of it, RFC 5322, section 3.2.3
        ("Jane O'Brien <j.o'brien+cv@x-y.org>", [("Jane O'Brien", "j.o'brien+cv@x-y.org")]),
        ("Pete(A \\) chap) <pete(his)@silly.test(host)>", [("Pete", "pete@silly.test")]),
        ("John <jdoe@machine(comment).  example>", [("John", "jdoe@machine.example")]),
        ("jane . doe @ x . org", [(None, "jane.doe@x.org")]),
        ('"a\\"b" <j@x.org>', [('a"b', "j@x.org")]),
        ('Jane "JD" Doe <j@x.org>', [("Jane JD Doe", "j@x.org")]),
        ('"Jane <j@y.org>" <j@x.org>', [("Jane <j@y.org>", "j@x.org")]),
    ],
)
def test_what_the_rules_allow(value, expected):
    assert read(value) == expected
    assert all(agreed(value, address) for _, address in expected[:1])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Jane Doe jane@x.org", [("Jane Doe", "jane@x.org")]),
        ("Jane Doe (jane@x.org)", [("Jane Doe", "jane@x.org")]),
        ("a@x.org b@x.org", [(None, "a@x.org"), (None, "b@x.org")]),
        ("Bob <bob@x.org> Eve <eve@x.org>", [("Bob", "bob@x.org"), ("Eve", "eve@x.org")]),
        ("a@b.c; d@e.f", [(None, "a@b.c"), (None, "d@e.f")]),
        ("Jane <j@x.org", [("Jane", "j@x.org")]),
        ('"Jane <j@x.org>', [("Jane", "j@x.org")]),
        ("Jane (JD <j@x.org>", [("Jane JD", "j@x.org")]),
        ("<<j@x.org>>", [(None, "j@x.org")]),
        ("[j@x.org]", [(None, "j@x.org")]),
        ("j@x.org <>", [(None, "j@x.org")]),
        ('"j@x.org" <>', [(None, "j@x.org")]),
        ("'j@x.org'", [(None, "j@x.org")]),
        ("j@x.org.", [(None, "j@x.org")]),
        ("mailto:j@x.org", [(None, "j@x.org")]),
        ("<mailto:j@x.org>", [(None, "j@x.org")]),
        ("<=?utf-8?q?j=40x.org?=>", [(None, "j@x.org")]),
        ("<j@x.org> Jane Doe", [("Jane Doe", "j@x.org")]),
        ("jane@x.org <Jane Doe>", [(None, "jane@x.org")]),
        ("=?utf-8?q?jane=40x.org?=", [(None, "jane@x.org")]),
        ("<jane@x.org,>", [(None, "jane@x.org")]),
        ("<'jane@x.org'>", [(None, "jane@x.org")]),
        ("ja..ne@x.org", [(None, "ja..ne@x.org")]),
        ("<jane.@x.org>", [(None, "jane.@x.org")]),
        ("<jane@[IPv6:::1]", [(None, "jane@[IPv6:::1]")]),
        ("jane@x.org'", [(None, "jane@x.org")]),
    ],
)
def test_what_is_against_the_rules_is_read_and_told(value, expected):
    assert read(value) == expected
    assert not agreed(value, expected[0][1])


@pytest.mark.parametrize("value", ["", "Jane Doe", "jane at x.org", "root", "<>", "MAILER DAEMON <>", "@", ",;:", "a@"])
def test_no_address_is_made_up(value):
    assert read(value) == []


@pytest.mark.parametrize("value", ["<root>", "<jane doe@x.org>", "<a@b@c.d>", "<a\x00b@c.d>", "<jos\ufffd@x.org>"])
def test_what_is_no_address_is_kept_for_show_and_known_for_none(value):
    [mailbox] = read_mailboxes(value)
    assert not is_address(mailbox.address)


def test_a_name_of_uncertain_bytes_is_marked():
    assert list(read_mailboxes("=?x-none?q?Jane?= <j@x.org>")) == [Mailbox("Jane", "j@x.org", certain=False)]


def test_an_address_is_not_longer_than_mail_can_carry():
    assert is_address("a" * 64 + "@" + "b" * 255)
    assert not is_address("a" * 65 + "@" + "b" * 255)


@given(
    st.lists(st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1), min_size=1, max_size=4),
    st.sampled_from([", ", ",\n ", " , "]),
)
def test_what_the_standard_library_writes_is_read_back(names, comma):
    written = [(name, f"user{number}@example.org") for number, name in enumerate(names)]
    value = comma.join(formataddr(pair).replace("\n", " ") for pair in written)
    assert read(value) == written


@given(st.text('"\\(),:;<>@[] a.\t', min_size=1))
def test_any_name_survives_quoting(name):
    [mailbox] = read_mailboxes(str(Address(name, "jane", "example.org")))
    assert mailbox.address == "jane@example.org"
    assert (mailbox.name or "") == " ".join(name.split())


@example(["=", "@", "\ud800"])
@example(['"', "\ud800", '"', "@", "a"])
@given(st.lists(st.sampled_from([*'"\\(),:;<>@[] =?', "a", ".", "=?utf-8?q?a?=", "\x00", "\ud800", "\u202e", "é"])))
def test_anything_gives_clean_mailboxes(pieces):
    for mailbox in read_mailboxes("".join(pieces)):
        text = f"{mailbox.name}{mailbox.address}".encode()
        assert b"\x00" not in text and mailbox.address
        assert mailbox.name is None or mailbox.name.strip()
    agreed("".join(pieces), "x")


@pytest.mark.parametrize(
    "unit",
    [
        *('"\\', '"', "(", "(\\", "<", "<a", "=?utf-8?q?", "=?utf-8?q?a?=", "=?", "a@b.c, ", "a ", ",", "a,", "a@b "),
        *(" . ", "@", ":", '"a"', "=", "a:", "<a@b.c>", ")", "[", "a;"),
    ],
)
def test_a_hostile_header_is_read_in_a_moment(unit):
    value = unit * (1_000_000 // len(unit))
    started = time.thread_time()
    for _ in read_mailboxes(value):
        pass
    agreed(value, "a@b.c")
    assert time.thread_time() - started < 3


@given(
    st.lists(
        st.sampled_from(
            [
                *("Jane", "O'Neill", "`", "'", "|", "-", "a.b", " ", "  ", "(", ")", "<", ">", '"', ",", "=", "!"),
                *("jane@example.org", "(jane@example.org)", "<j+a@x-y.example.org>", " (jane_doe@x.org) "),
            ]
        ),
        max_size=7,
    ).map("".join)
)
def test_what_is_plain_is_read_as_everything_else(value):
    found = list(addresses.read_mailboxes(value))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses, "_plain_mailbox", lambda _: None)
        assert found == list(addresses.read_mailboxes(value))


@pytest.mark.parametrize(
    "value", ["Jane Doe (jane@example.org)", " Jane  (jane@example.org) ", "Jane Doe <jane@x.example>"]
)
def test_how_mail_names_most_people_is_plain(value):
    assert addresses._plain_mailbox(value) is not None
