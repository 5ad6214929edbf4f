"""The body's digest is dkimpy's, and takes no longer however the body is made."""

import hashlib
import time

import pytest
from dkim import rfc822_parse
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.trust import body
from apptrack_ingest.trust.body import body_digest

BODIES = st.lists(
    st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\n", b"\r", b"  ", b".", b"\r\n\r\n", b"=20"]), max_size=40
).map(b"".join)


@given(BODIES, st.integers(1, 9), st.sampled_from(["simple", "relaxed"]))
def test_the_digest_is_dkimpy_s_whatever_the_pieces(text, piece, form):
    text += b"\r\n"  # as SMTP delivers it; RFC 6376 leaves a last line without its end open
    _, expected = rfc822_parse(b"A: b\r\n\r\n" + text)
    expected = {"simple": Simple, "relaxed": Relaxed}[form].canonicalize_body(expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body, "_PIECE", piece)
        assert body_digest(b"A: b\r\n\r\n" + text, 8, form) == hashlib.sha256(expected).digest()


@pytest.mark.parametrize(("form", "expected"), [("simple", b"\r\n"), ("relaxed", b"")])
def test_an_empty_body(form, expected):
    """RFC 6376, sections 3.4.3 and 3.4.4."""
    for text in (b"", b"\r\n", b"\r\n\r\n"):
        assert body_digest(text, 0, form) == hashlib.sha256(expected).digest()


@pytest.mark.parametrize("unit", [b" ", b"\t ", b"\r\n", b"\r", b"\n", b" \r\n", b"a b ", b"QUJD" * 19 + b"\r\n"])
def test_time_grows_with_the_length_only(unit):
    raw = unit * (4 * 1024 * 1024 // len(unit))
    started = time.process_time()
    body_digest(raw, 0, "relaxed")
    body_digest(raw, 0, "simple")
    assert time.process_time() - started < 5  # 0.2 s; in the square of the length it would be hours
