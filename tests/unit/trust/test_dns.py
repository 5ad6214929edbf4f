"""DNS answers over real sockets: what there is, what there is not, what cannot be had now, and strangers' names."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from names import Trouble, pointer

from apptrack_ingest.trust import DnsResolver, TemporaryDns
from apptrack_ingest.trust.names import domain_name, ip, matches, plain


@pytest.fixture
def resolver(nameserver):
    nameserver.zone |= {
        "idibu.com": {"TXT": [b"v=spf1 -all", b"x" * 300], "MX": ["10 mx1.idibu.com."], "A": ["193.0.14.1"]},
        "both.idibu.com": {"A": ["193.0.14.1"], "AAAA": ["2001:db8::1"]},
        "alias.idibu.com": {"CNAME": ["idibu.com."]},
        "large.idibu.com": {"TXT": [b"y" * 4000]},
        pointer("193.0.14.1"): {"PTR": ["mx1.idibu.com."]},
        **{f"{trouble.value}.idibu.com": trouble for trouble in Trouble},
    }
    return DnsResolver([nameserver.address], timeout=0.3)


async def test_answers(nameserver, resolver):
    assert sorted(await resolver.txt("idibu.com")) == [b"v=spf1 -all", b"x" * 300]
    assert await resolver.mx("IDIBU.com.") == [(10, "mx1.idibu.com")]
    assert await resolver.pointers("193.0.14.1") == ["mx1.idibu.com"]
    assert await resolver.addresses("both.idibu.com") == ["193.0.14.1", "2001:db8::1"]
    assert await resolver.addresses("both.idibu.com", 6) == ["2001:db8::1"]


async def test_a_large_answer_comes_by_tcp(nameserver, resolver):
    assert await resolver.txt("large.idibu.com") == [b"y" * 4000]
    assert nameserver.over_tcp == [("large.idibu.com", "TXT")]


async def test_no_such_name_and_no_such_record(resolver):
    assert await resolver.txt("nothing.idibu.com") == []
    assert await resolver.txt("both.idibu.com") == []
    assert await resolver.addresses("nothing.idibu.com") == []
    assert await resolver.pointers("193.0.14.2") == []
    assert await resolver.mx("both.idibu.com") == []


@pytest.mark.parametrize("trouble", list(Trouble))
async def test_no_answer(resolver, trouble):
    with pytest.raises(TemporaryDns):
        await resolver.txt(f"{trouble.value}.idibu.com")


async def test_answers_are_kept_for_their_time(nameserver, resolver):
    for _ in range(3):
        await resolver.txt("idibu.com")
        await resolver.txt("nothing.idibu.com")
    assert nameserver.queries.count(("idibu.com", "TXT")) == 1


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "a" * 64 + ".com", "a." * 200, "\x00", "a\\", "a\\9", "ü" * 70, "\udcff", "xn--\xff", " ", "a b"],
)
async def test_strangers_names(resolver, name):
    assert await resolver.txt(name) == []
    assert await resolver.addresses(name, 4) == []
    assert await resolver.mx(name) == []
    assert await resolver.pointers(name) == []


async def _settled(nameserver) -> int:
    """How many questions came, once no more do; each has been asked for long before a silent server is given up."""
    seen = -1
    while seen != len(nameserver.queries):
        seen = len(nameserver.queries)
        await asyncio.sleep(0.1)
    return seen


async def _asked(nameserver, many):
    """Waits until so many different questions came, and then until no more come."""
    async with asyncio.timeout(60):
        while len(set(nameserver.queries)) < many:
            await asyncio.sleep(0.02)
    await _settled(nameserver)


async def test_no_more_questions_than_places_are_under_way(nameserver):
    nameserver.zone |= {f"s{number}.idibu.com": Trouble.SILENT for number in range(100)}
    resolver = DnsResolver([nameserver.address], timeout=60)
    asking = [asyncio.create_task(resolver.txt(f"s{number}.idibu.com")) for number in range(100)]
    try:
        await _asked(nameserver, 64)
        assert len(set(nameserver.queries)) == 64
        assert resolver.busy
        asking[0].cancel()
        await _asked(nameserver, 65)
        assert len(set(nameserver.queries)) == 65
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert not resolver.busy
    assert await resolver.txt("nothing.idibu.com") == []


async def test_nobody_there():
    with pytest.raises(TemporaryDns):
        await DnsResolver(["127.0.0.1:1"], timeout=0.2).txt("idibu.com")


@pytest.mark.parametrize(
    "server", ["193.0.14.129", "193.0.14.129:5353", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:53"]
)
def test_servers(server):
    DnsResolver([server])


@pytest.mark.parametrize("server", ["dns.example.com", "", "193.0.14.129:x", "[2001:db8::1", "::1]:53"])
def test_servers_that_are_none(server):
    with pytest.raises(ValueError, match=r"."):
        DnsResolver([server])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Idibu.COM.", "idibu.com"),
        ("Bücher.example", "xn--bcher-kva.example"),
        (" x ", "x"),
        ("_domainkey.x", "_domainkey.x"),
        ("a..b", None),
        ("", None),
        (".", None),
        ("a@b", None),
        ("a b", None),
        ("a" * 64, None),
        ("a." * 126 + "bc", None),
        ("ü" * 250, None),
    ],
)
def test_domain_names(text, name):
    assert domain_name(text) == name


@given(st.text(max_size=300))
def test_texts_never_raise(text):
    name = domain_name(text)
    assert name is None or (name.isascii() and domain_name(name) == name)
    ip(text)
    assert plain(text).isprintable()
    assert isinstance(matches("mx.idibu.com", text), bool)


@pytest.mark.parametrize(
    ("pattern", "listed"),
    [("mx.idibu.com", True), (".idibu.com", True), ("*.idibu.com", True), ("*.COM.", True), ("idibu.com", False),
     (".mx.idibu.com", False), ("*", False), (".", False), ("", False), ("*ibu.com", False)],
)  # fmt: skip
def test_patterns(pattern, listed):
    assert matches("mx.idibu.com", pattern) is listed
