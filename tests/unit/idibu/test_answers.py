"""idibu's answers in every spelling its documents show."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.idibu import answers
from apptrack_ingest.idibu.xml import XmlError
from apptrack_ingest.model import ReportStatus


@pytest.mark.parametrize(
    "body",
    [
        "<idibu><status>success</status></idibu>",
        "<idibu generator='idibu' version='1.0'><response>Applicant status saved</response><status>success</status></idibu>",
        '\n <?xml version="1.0" encoding="utf8"?><IDIBU><RESPONSE/><STATUS> SUCCESS </STATUS></IDIBU>',
        "<idibu xmlns='urn:x'><status>Success</status></idibu>",
        "<idibu><log><warnings><warning>w</warning></warnings></log><status>success</status></idibu>",
    ],
)
def test_success(body: str) -> None:
    assert answers.read(body.encode()).succeeded


@pytest.mark.parametrize(
    "body",
    [
        "<idibu><response>No  such\nthing</response><status>failed</status></idibu>",
        "<idibu><response><message>No such thing</message></response><status>fail</status></idibu>",
        "<idibu><log><errors><error>No such thing</error></errors></log><status>failed</status></idibu>",
        "<IDIBU><LOG><ERRORS><ERROR>No such thing</ERROR></ERRORS></LOG></IDIBU>",
        "<IDIBU><RESPONSE><MESSAGE>No such thing</MESSAGE></RESPONSE><STATUS>FAILED</STATUS></IDIBU>",
        "<idibu><status>success</status><status>failed</status><response>No such thing</response></idibu>",
        "<idibu><status>success</status><x:status>failed</x:status><response xmlns='u'>No such thing</response></idibu>",
    ],
)
def test_failure_with_its_words(body: str) -> None:
    answer = answers.read(body.encode())
    assert not answer.succeeded
    assert answer.message == "No such thing"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html><body>success</body></html>",
        "<idibu/>",
        "<idibu><status/></idibu>",
        "<idibu><status>maybe</status></idibu>",
        "<idibu><response><applicant><status>success</status></applicant></response></idibu>",
    ],
)
def test_neither(body: str) -> None:
    with pytest.raises(XmlError):
        answers.read(body.encode())


@pytest.mark.parametrize(
    ("words", "blamed"),
    [
        ("Invalid hash", True),
        ("HASH NOT FOUND", True),
        ("Wrong API key", True),
        ("You are not authorised", True),
        ("Unauthorized", True),
        ("Authentication failed", True),
        ("Permission denied", True),
        ("Access denied", True),
        ("You have no permission to change this applicant", False),
        ("error-message: the ATS says unauthorized", False),
        ("Unknown status", False),
        ("rehashing", False),
        ("", False),
    ],
)
def test_words_about_the_hash(words: str, blamed: bool) -> None:
    body = f"<idibu><response>{words}</response><status>%s</status></idibu>"
    assert answers.read((body % "failed").encode()).blames_hash is blamed
    assert answers.read((body % "success").encode()).blames_hash is False


LISTED = """<idibu generator="idibu" version="1.0"><response><applicant>
  <id>123</id><status>%s</status><remote-id/><error-message> eaten by a dog </error-message>
  <date-processed>2016-06-03 13:07:34</date-processed>
  <status-info><date-created>2016-06-03 13:07:35</date-created><date-modified>soon</date-modified></status-info>
</applicant></response><status>success</status></idibu>"""


def test_listed_applicants() -> None:
    for spelling in (LISTED % "fail", (LISTED % "failed").upper().replace("VERSION", "version")):
        (one,) = answers.applicants(answers.read(spelling.encode()))
        assert (one.id, one.status, one.remote_id) == (123, ReportStatus.FAIL, None)
        assert one.error_message and one.error_message.lower() == "eaten by a dog"
        assert one.date_processed == datetime(2016, 6, 3, 13, 7, 34)
        assert (one.date_created, one.date_modified) == (datetime(2016, 6, 3, 13, 7, 35), None)


@pytest.mark.parametrize(
    "broken", [LISTED % "", (LISTED % "fail").replace("123", "12x"), (LISTED % "fail").replace("123", "")]
)
def test_applicants_without_id_or_status_are_not_understood(broken: str) -> None:
    with pytest.raises(XmlError):
        answers.applicants(answers.read(broken.encode()))


@given(st.text(st.sampled_from("<>/&;'\"=! idbustaferlog\n\x00é"), max_size=80))
def test_no_answer_breaks_the_reader(inner: str) -> None:
    try:
        answers.read(f"<idibu>{inner}<status>success</status></idibu>".encode())
    except XmlError as error:
        assert inner.strip() not in ("", "x")
        assert "\n" not in str(error)


def test_nested_words_are_read_once_in_linear_time() -> None:
    """They stood in the message once for each level, which took half a minute for a hostile megabyte."""
    inner = "".join(f"<error>e{number}</error>" for number in range(1000))
    body = "<idibu>" + "<error>" * 200 + inner + "</error>" * 200 + "<log><error>last</error></log></idibu>"
    message = answers.read(body.encode()).message
    assert message.endswith("e998e999; last")
    assert message.count("e500") == 1


def test_an_answer_read_again_is_what_it_says_each_time() -> None:
    saved, failed = b"<idibu><status>success</status></idibu>", b"<idibu><status>failed</status></idibu>"
    for _ in range(2):
        assert [answers.read_again(body).succeeded for body in (saved, failed)] == [True, False]
        with pytest.raises(XmlError):
            answers.read_again(b"")


def test_a_long_answer_is_not_kept() -> None:
    long = b"<idibu><status>success</status><response>" + b"x" * 512 + b"</response></idibu>"
    assert answers.read_again(long) is not answers.read_again(long)
