"""Whom we take mail for, and which account it goes to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.receive.policy import Destination, Directory, Special, parse_path, route, subaddresses

A, B = frozenset({"a"}), frozenset({"b"})


def directory(**extra) -> Directory:
    return Directory(
        accounts={
            "a": Destination(frozenset({"jobs@one.example", "Work@Mixed.Example"}), 1),
            "b": Destination(frozenset({"@one.example", "bücher.example", "jobs@xn--strae-oqa.example"}), 2),
            "c": Destination(frozenset({"twice@one.example"})),
            "d": Destination(frozenset({"twice@one.example"}), 4),
        },
        shared=frozenset({"apply@shared.example", "hub.example"}),
        **extra,
    )


@pytest.mark.parametrize(
    ("recipient", "found"),
    [
        ("jobs@one.example", A),
        ("JOBS@ONE.EXAMPLE.", A),
        ("work@mixed.example", A),
        ('"jobs"@one.example', A),
        (r'"j\obs"@one.example', A),
        ("anything@one.example", B),
        ("jobs+tag@one.example", A),
        ("x@bücher.example", B),
        ("x@BÜCHER。example", B),
        ("x@xn--bcher-kva.example", B),
        ("jobs@straße.example", B),
        ("twice@one.example", frozenset({"c", "d"})),
        ("apply@shared.example", Special.SHARED),
        ("anyone@hub.example", Special.SHARED),
        ("other@shared.example", Special.UNKNOWN),
        ("jobs@sub.one.example", Special.UNKNOWN),
        ("jobs", Special.UNKNOWN),
        ("one.example", Special.UNKNOWN),
        ('"jobs@one.example"', Special.UNKNOWN),
        ('"x@one.example"@elsewhere.example', Special.UNKNOWN),
        ("jobs@xn--\xff.example", Special.UNKNOWN),
        ("jobs@[127.0.0.1]", Special.UNKNOWN),
        ("@", Special.UNKNOWN),
        ("", Special.UNKNOWN),
        ("postmaster", Special.POSTMASTER),
        ("PostMaster@one.example", Special.POSTMASTER),
        ("postmaster@hub.example", Special.POSTMASTER),
        ("postmaster@elsewhere.example", Special.UNKNOWN),
    ],
)
def test_resolve(recipient, found):
    assert directory().resolve(recipient) == found


def test_any_recipient_is_for_loopback_only_and_the_last_to_be_asked():
    found = directory(any_recipient="default")
    assert found.resolve("x@elsewhere.example", local=True) == {"default"}
    assert found.resolve("x@elsewhere.example", local=False) is Special.UNKNOWN
    assert found.resolve("jobs@one.example", local=True) == A
    assert found.resolve("postmaster", local=False) is Special.POSTMASTER


def test_an_account_may_list_postmaster_as_its_own():
    found = Directory(accounts={"a": Destination(frozenset({"postmaster@one.example"}))})
    assert found.resolve("postmaster@one.example") == A


@pytest.mark.parametrize(
    ("recipients", "client_id", "accounts"),
    [
        (["jobs@one.example"], None, ("a",)),
        (["jobs@one.example"], 1, ("a",)),
        (["jobs@one.example"], 2, (None,)),
        (["jobs@one.example"], 99, (None,)),
        (["apply@shared.example"], 2, ("b",)),
        (["apply@shared.example"], None, (None,)),
        (["apply@shared.example"], 99, (None,)),
        (["jobs@one.example", "work@mixed.example"], None, ("a",)),
        (["x@one.example", "jobs@one.example"], None, ("b", "a")),
        (["jobs@one.example", "apply@shared.example"], 1, ("a",)),
        (["jobs@one.example", "apply@shared.example"], None, ("a",)),
        (["jobs@one.example", "apply@shared.example"], 2, (None, "b")),
        (["twice@one.example"], None, ("c", "d")),
        (["twice@one.example"], 4, ("d",)),
        (["twice@one.example"], 99, ("c",)),
        (["twice@one.example"], 1, (None,)),
        (["postmaster"], 1, (None,)),
        (["postmaster", "jobs@one.example"], None, ("a",)),
        (["gone@elsewhere.example"], 1, (None,)),
        ([], None, (None,)),
    ],
)
def test_route(recipients, client_id, accounts):
    assert route(recipients, client_id, directory()) == accounts


@given(
    st.lists(st.sampled_from(["jobs@one.example", "twice@one.example", "apply@shared.example", "postmaster", "x"])),
    st.sampled_from([None, 1, 2, 4, 99]),
)
def test_no_account_twice_and_never_nothing(recipients, client_id):
    accounts = route(recipients, client_id, directory())
    assert accounts
    assert len(set(accounts)) == len(accounts)


_KNOWN = directory()


@given(
    st.lists(
        st.sampled_from(["jobs@one.example", "jobs+WORD@one.example", "apply+x@shared.example", "postmaster", "gone"]),
        max_size=3,
    ),
    st.sampled_from([None, 1, 2, 4, 99]),
)
def test_the_way_of_a_mail_is_the_same_however_often_it_is_asked_for(recipients, client_id):
    fresh = directory()
    accounts = route(recipients, client_id, fresh)
    for _ in range(2):
        found = _KNOWN.way(tuple(recipients), client_id)
        assert found.accounts == accounts
        assert found.words == subaddresses(recipients, accounts, fresh)
        assert found.for_postmaster == ("postmaster" in recipients)


def test_no_more_ways_are_remembered_than_a_few():
    found = directory()
    for number in range(1000):
        found.way((f"jobs+{number}@one.example",), number)
        found.way((f"jobs+{number}@one.example", "x@one.example"), number)
    assert found._way_of_one.cache_info().currsize == 256


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("<a@b.example>", ("a@b.example", "")),
        (" <a@b.example> SIZE=10 BODY=8BITMIME", ("a@b.example", "SIZE=10 BODY=8BITMIME")),
        ("a@b.example SIZE=10", ("a@b.example", "SIZE=10")),
        ("<>", ("<>", "")),
        ("<> SIZE=1", ("<>", "SIZE=1")),
        ("<postmaster>", ("postmaster", "")),
        ("<@x.example,@y.example:a@b.example>", ("a@b.example", "")),
        ('<"john doe"@b.example>', ('"john doe"@b.example', "")),
        ('<"a@b>"@c.example>', ('"a@b>"@c.example', "")),
        ("<a..b.@b.example>", ("a..b.@b.example", "")),
        ("<a@[IPv6:::1]>", ("a@[IPv6:::1]", "")),
        ("<jürgen@bücher.example>", ("jürgen@bücher.example", "")),
    ],
)
def test_paths(text, parsed):
    assert parse_path(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<",
        "<a@b",
        "<a b@c>",
        "<a@b\x00>",
        "<a@b@c>",
        "<a@>",
        "<@b>",
        "<a\x07@b>",
        '<"a@b>',
        "<a@b\udcff>",
        "<<a@b>>",
    ],
)
def test_no_paths(text):
    assert parse_path(text) is None


@given(st.text(alphabet='<>@"\\ .a:,[]\x00é\udc80', max_size=40))
def test_any_text_is_parsed_or_refused(text):
    parsed = parse_path(text)
    if parsed is not None:
        assert parsed[0]
        parsed[0].encode()
        directory().resolve(parsed[0])
