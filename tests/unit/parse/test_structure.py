"""The tree of parts: boundaries that are missing, unclosed, repeated or equal, and heads that are broken."""

import pytest

from apptrack_ingest.errors import Unreadable
from apptrack_ingest.parse.mime import parse
from apptrack_ingest.parse.structure import Budget, split

ROOMY = {"parts": 100, "depth": 10, "decoded_bytes": 10**6}


def tree(raw: bytes, content_type: bytes = b"multipart/mixed; boundary=b", **limits):
    root, warnings = split(raw, 0, [(b"Content-Type", content_type)], Budget(**ROOMY | limits))
    leaves = [(part.head.content_type, raw[part.start : part.end]) for part, _ in root.leaves()]
    return leaves, warnings


def lines(*each: str) -> bytes:
    return "\n".join(each).encode()


def test_parts_without_the_line_end_that_belongs_to_the_boundary():
    leaves, warnings = tree(b"\r\n--b\r\nA: b\r\n\r\none\r\n\r\n--b\r\n\r\ntwo\r\n--b--\r\n")
    assert leaves == [("text/plain", b"one\r\n"), ("text/plain", b"two")] and warnings == []


def test_a_part_right_at_the_beginning_and_an_empty_one():
    assert tree(b"--b\n\n--b\nA: b\n--b--")[0] == [("text/plain", b""), ("text/plain", b"")]


@pytest.mark.parametrize("line", ["--b  ", "--b\t", "--b and a remark"])
def test_what_follows_a_boundary_after_a_blank_is_passed_over(line):
    assert tree(lines("", line, "", "x", "--b--"))[0] == [("text/plain", b"x")]


@pytest.mark.parametrize("line", ["--bb", "-b", " --b", "x--b", "--B"])
def test_what_is_no_boundary(line):
    assert tree(lines("", "--b", "", line, "--b--"))[0] == [("text/plain", line.encode())]


@pytest.mark.parametrize("mark", ["a--", "--", "=_ spaced (out)?", "x" * 200])
def test_odd_boundaries(mark):
    raw = lines("", f"--{mark}", "", "one", f"--{mark}", "", "two", f"--{mark}--")
    leaves, warnings = tree(raw, f'multipart/mixed; boundary="{mark}"'.encode())
    assert leaves == [("text/plain", b"one"), ("text/plain", b"two")] and warnings == []


def nested(*inner: str) -> bytes:
    return lines("", "--b", "Content-Type: multipart/alternative; boundary=c", "", *inner, "--b", "", "outer", "--b--")


def test_an_outer_boundary_ends_what_an_inner_multipart_left_open():
    leaves, warnings = tree(nested("--c", "", "inner"))
    assert leaves == [("text/plain", b"inner"), ("text/plain", b"outer")]
    assert warnings == ["a multipart part is not closed: the mail may have been cut short"]


def test_a_multipart_that_never_starts_is_a_leaf():
    leaves, warnings = tree(nested("only words"))
    assert leaves == [("multipart/alternative", b"only words"), ("text/plain", b"outer")]
    assert warnings == ["a multipart part never starts its first part; it was read as text"]


def test_words_after_the_end_are_left_out_and_parts_there_are_not():
    raw = lines("", "--b", "", "one", "--b--", "words", "--b", "words", "--b", "Content-Type: a/b", "", "two", "--b--")
    root, warnings = split(raw, 0, [(b"Content-Type", b"multipart/mixed; boundary=b")], Budget(**ROOMY))
    parts = [(part.head.content_type, part.recovered) for part, _ in root.leaves()]
    assert parts == [("text/plain", False), ("a/b", True)]
    assert warnings == [
        "text after the last part was left out",
        "parts follow after the end of a multipart; they were read as its own",
    ]


def test_of_two_multiparts_with_one_boundary_the_inner_has_the_parts():
    leaves, _ = tree(nested("--b", "", "a", "--b", "", "b").replace(b"boundary=c", b"boundary=b"))
    assert [content for _, content in leaves] == [b"a", b"b", b"outer"]


@pytest.mark.parametrize(
    "declared", [b"multipart/mixed", b'multipart/mixed; boundary=""', b"multipart/mixed; boundary=x"]
)
def test_a_boundary_that_is_not_there_is_seen_from_the_lines(declared):
    raw = lines("A notice.", "----=_x", "Content-Type: a/b", "", "one", "----=_x", "", "two", "----=_x--")
    root, warnings = split(raw, 0, [(b"Content-Type", declared)], Budget(**ROOMY))
    assert [(part.head.content_type, part.recovered) for part, _ in root.leaves()] == [
        ("a/b", True),
        ("text/plain", True),
    ]
    assert warnings == ["a multipart part names no boundary that is there; the one that its lines show was used"]


def test_lines_with_hyphens_alone_are_no_boundary():
    raw = lines("words", "-- ", "Jane", "--signature")
    leaves, warnings = tree(raw, b"multipart/mixed")
    assert leaves == [("multipart/mixed", raw)]
    assert warnings == ["a multipart part names no boundary that is there; it was read as text"]


def test_a_boundary_written_twice_is_no_empty_part():
    assert tree(lines("", "--b", "--b", "", "x", "--b", "--b", "--b--")) == (
        [("text/plain", b"x"), ("text/plain", b"")],
        [],
    )


def test_a_digest_holds_mails_unless_it_says_otherwise():
    raw = lines("", "--b", "", "Subject: x", "", "--b", "Content-Type: text/plain", "", "x", "--b--")
    assert [kind for kind, _ in tree(raw, b"multipart/digest; boundary=b")[0]] == ["message/rfc822", "text/plain"]


def test_a_short_head_known_from_another_multipart_has_this_ones_type():
    raw = lines("", "--b", "Content-ID: <y>", "", "x", "--b--")
    assert [tree(raw, b"multipart/" + kind + b"; boundary=b")[0][0][0] for kind in (b"mixed", b"digest", b"mixed")] == [
        "text/plain",
        "message/rfc822",
        "text/plain",
    ]


def test_short_heads_count_however_often_they_are_repeated():
    raw = b"\n--b\nContent-Type: a/b\n\nx" * 3
    root, warnings = split(raw, 0, [(b"Content-Type", b"multipart/mixed; boundary=b")], Budget(**ROOMY, head_bytes=36))
    assert [part.head.content_type for part in root.children] == ["a/b", "a/b", "text/plain"]
    assert warnings[0] == "the parts' headers are too long; the rest of them was read as text"


@pytest.mark.parametrize(
    ("head", "content", "warnings"),
    [
        (["Content-Type: a/b;", 'name="x"', "Content-ID: <y>", "", "body"], b"body", []),
        (["Content-Type: a/b", "not a header", "Content-ID: <y>", "", "body"], b"body", []),
        ([" a fold of nothing", "Content-Type: a/b", "", "body"], b"body", []),
        (["Content-Type: a/b", "body: it seems", "body"], b"body", ["a part's headers run into its body"]),
        (["Content-Type: a/b", "Words.", "", "body"], b"Words.\n\nbody", ["a part's headers run into its body"]),
        (["Content-Type : a/b", "", "body"], b"body", []),
    ],
)
def test_broken_heads(head, content, warnings):
    assert tree(lines("", "--b", *head, "--b--")) == ([("a/b", content)], warnings)


def test_heads_beyond_all_measure_end_early():
    raw = b"\n--b\nContent-Type: a/b\n" + b"x: y\n" * 300_000 + b"\nbody\n--b--"
    leaves, warnings = tree(raw)
    assert leaves[0][0] == "a/b" and leaves[0][1].endswith(b"\n\nbody")
    assert warnings == ["the parts' headers are too long; the rest of them was read as text"]


def test_limits():
    with pytest.raises(Unreadable, match="too-many-parts"):
        tree(b"\n--b\n\nx" * 4, parts=3)
    assert len(tree(b"\n--b\n\nx" * 3, parts=3)[0]) == 3


def test_nothing_of_a_part_is_lost_where_the_mail_just_ends():
    parsed = parse(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nlast words"
    )
    assert parsed.text == "last words"


def test_a_boundary_is_found_behind_hyphens_and_where_there_is_none_before():
    leaves, warnings = tree(b"\n--b\n\nQUJD\n--b\n\nwell-known -- and\n-- \n--b\n\n-\n--b--")
    assert (leaves, warnings) == (
        [("text/plain", b"QUJD"), ("text/plain", b"well-known -- and\n-- "), ("text/plain", b"-")],
        [],
    )
    assert tree(b"\n--b\n\nno more of them")[0] == [("text/plain", b"no more of them")]
