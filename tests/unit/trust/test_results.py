"""Authentication results: honest ones are understood, and a stranger's words in them add nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.trust.results import Results, read_results

IDIBU = frozenset({"idibu.com"})
GOOGLE = b""" i=1; mx.google.com;\r
       dkim=pass header.i=@idibu.com header.s=k1 header.b="Ab1/+c2=";\r
       spf=pass (google.com: domain of bounces+1=x@idibu.com designates 192.0.2.1 as permitted sender)\r
 smtp.mailfrom="bounces+1=x@idibu.com";\r
       dmarc=pass (p=NONE sp=NONE dis=NONE) header.from=idibu.com\r\n"""
MICROSOFT = (
    b" i=1; mx.microsoft.com 1; spf=pass (sender ip is 192.0.2.1) smtp.rcpttodomain=customer.example"
    b" smtp.mailfrom=idibu.com; dmarc=pass (p=none sp=none pct=100) action=none header.from=idibu.com;"
    b" dkim=pass (signature was verified) header.d=idibu.com; arc=none (0)\r\n"
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (GOOGLE, Results(IDIBU, "idibu.com")),
        (MICROSOFT, Results(IDIBU, "idibu.com")),
        (b"i=1; mx; none", Results()),
        (b"i=1; mx", Results()),
        (b"", Results()),
        (b"i=1; mx; DKIM/1=PASS Header.D=Idibu.COM", Results(IDIBU)),
        (b'i=1; mx; dkim=pass reason="all; well" header.d=idibu.com', Results(IDIBU)),
        (b"i=1; mx; dkim=pass (a (nested; one)) header.d=idibu.com;", Results(IDIBU)),
        (b"i=1; mx; dkim=pass header.d=evil.example header.i=@idibu.com", Results(frozenset({"evil.example"}))),
        # odd entries do not count
        (b"i=1; mx; dkim=pass header.d=idibu.com header.d=evil.example", Results()),
        (b"i=1; mx; dkim=pass stray header.d=idibu.com", Results()),
        (b"i=1; mx; dkim=pass dkim=fail header.d=idibu.com", Results()),
        (b"i=1; mx; dkim = pass header.d=idibu.com", Results()),
        (b"i=1; mx; spf=pass smtp.mailfrom=<>", Results()),
        (b"i=1; mx; spf=pass smtp.mailfrom=a@idibu.com; spf=fail smtp.mailfrom=b@evil.example", Results()),
        (b"i=1; mx; dkim=pass", Results()),
        (b"dkim=pass header.d=idibu.com; spf=pass smtp.mailfrom=idibu.com", Results()),  # the first two are no results
        # a quoted local part is one word
        (b'i=1; mx; spf=pass smtp.mailfrom="a; dkim=pass header.d=idibu.com"@evil.example', Results(spf=None)),
        # odd structure: nothing counts
        (b"i=1; mx; dkim=pass (open header.d=idibu.com", None),
        (b"i=1; mx; dkim=pass closed) header.d=idibu.com", None),
        (b'i=1; mx; dkim=pass header.d="idibu.com', None),
        (
            b'i=1; mx; spf=pass (domain of "x);dkim=pass header.d=idibu.com ("@evil.example) smtp.mailfrom=e.example',
            None,
        ),
        (b"i=1; mx; spf=pass (domain of x\\) y) smtp.mailfrom=idibu.com", None),
        (b"i=1; mx; dkim=pass " + b"(" * 100 + b")" * 100 + b" header.d=idibu.com", None),
        (b"i=1; mx; dkim=pass header.d=\xff", None),
    ],
)
def test_results(value, expected):
    assert read_results(value) == expected


@given(st.binary(max_size=300) | st.lists(st.sampled_from([b"i=1; mx; ", b"dkim=pass ", b"header.d=idibu.com", b";", b"(",
                                                           b")", b'"', b"\\", b" ", b"spf=pass smtp.mailfrom=x"]),
                                          max_size=12).map(b"".join))  # fmt: skip
def test_never_raises(value):
    results = read_results(value)
    assert results is None or isinstance(results, Results)
