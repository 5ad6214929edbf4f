"""No answer of a peer breaks a reader: each gives its values, or says that it does not understand."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.errors import IdibuError
from apptrack_ingest.idibu import answers, job_answers, service_answers
from apptrack_ingest.idibu.answers import Answer
from apptrack_ingest.idibu.calls import Request, judged
from apptrack_ingest.idibu.http import Reply
from apptrack_ingest.idibu.xml import XmlError

READERS: list[Callable[[Answer], Any]] = [
    answers.applicants,
    service_answers.done,
    service_answers.changed_account,
    service_answers.entries,
    service_answers.details,
    service_answers.services,
    service_answers.account_credits,
    service_answers.all_credits,
    service_answers.changed_credits,
    service_answers.global_cc,
    job_answers.jobs,
    job_answers.cancelled,
]

NAMES = st.sampled_from(
    [
        *("response", "status", "message", "log", "errors", "error", "warning", "a:b"),
        *("clients", "client", "client-hash", "client-id", "username", "credits", "creditsInfo", "available"),
        *("services", "service", "cc-email", "applicant", "id"),
        *("job", "posts", "post", "queue", "posting", "postcompletionurl"),
    ]
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(
        ["id", "status", "boardid", "queueid", "publish", "duration", "reason", "type", "STATUS", "client_reference"]
    ),
    st.sampled_from(["", "1", "-1", "9" * 40, "٣", "added", "failed", "2011-07-07 00:01", "0000-00-00 99:99", "é"]),
    max_size=3,
)
TEXT = st.sampled_from(["", "1", "9" * 40, "-", "success", "failed", "a,b", "٣", "&#x1F600;", "\n", "&amp;"])


def element(name: str, attributes: dict[str, str], inner: str) -> str:
    written = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<{name} xmlns:a="urn:a"{written}>{inner}</{name}>'


TREES = st.recursive(
    st.builds(element, NAMES, ATTRIBUTES, TEXT),
    lambda inner: st.builds(element, NAMES, ATTRIBUTES, st.lists(inner, max_size=4).map("".join)),
    max_leaves=12,
)


@given(st.lists(TREES, max_size=3).map("".join))
def test_any_tree_is_understood_or_refused(inner: str) -> None:
    body = f"<idibu>{inner}<status>success</status></idibu>".encode()
    for understand in (answers.read, job_answers.read):
        try:
            answer = understand(body)
        except XmlError:
            continue
        for read in READERS:
            try:
                read(answer)
            except XmlError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("read", READERS)
def test_a_hostile_megabyte_is_read_in_linear_time(read: Callable[[Answer], Any]) -> None:
    """Half of it nested as deep as the parser allows, half of it wide; a quadratic reader would need minutes."""
    deep = (
        "".join(f"<{name}>" * 40 for name in ("error", "posts", "job"))
        + "x"
        + "".join(f"</{name}>" * 40 for name in ("job", "posts", "error"))
    )
    wide = "<error>e</error><post status='x'/><queue id='1'/>" * 9000
    body = f"<idibu><job>{deep}{wide}</job><log>{deep}{wide}</log><status>success</status></idibu>".encode()
    for understand in (answers.read, job_answers.read):
        try:
            read(understand(body))
        except XmlError:
            continue


@pytest.mark.parametrize("filler", [b"a", b"a@", b"<a", b"&lt;", b"client reference ", b"error message "])
def test_a_megabyte_of_one_thing_is_judged_in_linear_time(filler: bytes) -> None:
    """What is no answer is shown, and what is one is judged by its words; quadratic patterns would need hours."""
    much = filler * (900_000 // len(filler))
    for body in (much, b"<idibu><log><errors><error>" + much.replace(b"<", b"") + b"</error></errors></log></idibu>"):
        for request in (Request("GET", "/"), Request("POST", "/", read=job_answers.read, refusal=job_answers.refusal)):
            with pytest.raises(IdibuError) as raised:
                judged(request, Reply(200, "text/html", body))
            assert len(str(raised.value)) < 700
