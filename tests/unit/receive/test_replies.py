"""docs/replies.md and the table of replies are one."""

import re
from pathlib import Path

import pytest

from apptrack_ingest.receive.policy import REPLIES

PAGE = Path(__file__).parents[3] / "docs" / "replies.md"
ROW = re.compile(r"^\| `(\d{3} [^`]*)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def test_the_page_lists_every_reply_and_no_other():
    listed = [line for line, _, _ in ROW.findall(PAGE.read_text())]
    assert sorted(listed) == sorted({reply.render() for reply in REPLIES.values()})


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_the_enhanced_code_fits_the_code(reply):
    """RFC 2034, 4: the same class; none for the greeting, the answer to HELO, 334 and 354."""
    bare = reply.enhanced == ""
    assert bare == (reply.code in (334, 354) or reply.text.startswith("{hostname}"))
    assert bare or re.fullmatch(rf"{reply.code // 100}\.\d\.\d+", reply.enhanced)


def test_no_two_replies_are_the_same():
    assert len({reply.render() for reply in REPLIES.values()}) == len(REPLIES)
