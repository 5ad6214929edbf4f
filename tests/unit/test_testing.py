"""What we ship for handler authors: the builders are true to idibu, and the contract suite catches bad handlers."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, ClassVar

import pytest

from apptrack_ingest import Accepted, Application, Person, Rejected, Verdict
from apptrack_ingest.testing import (
    A_PDF,
    ForgettingContract,
    HandlerContract,
    Held,
    a_document,
    an_application,
    an_email,
)


def parsed(raw: bytes) -> EmailMessage:
    return message_from_bytes(raw, _class=EmailMessage, policy=default)


def test_the_idempotency_key_follows_the_content_alone() -> None:
    key = an_application().idempotency_key
    assert an_application(attempt=5).idempotency_key == key
    others: list[dict[str, Any]] = [{"documents": ()}, {"applicant_id": 1}, {"account": "x"}, {"text": "new"}]
    assert len({key, *(an_application(**other).idempotency_key for other in others)}) == 5


def test_an_email_as_apptrack_forwards_it() -> None:
    mail = parsed(an_email(33139609, name="Zoë Müller", address="zoe@example.com", html="<p>hello</p>"))
    assert mail["X-iTrackID"] == "33139609"
    assert mail["X-iTrackID-ClientReference"] == "VAC-1042"
    assert mail["X-iTrackID-ClientSettings-Name"] == "Kara Smith (karas@idibu.com)"
    assert mail["From"] == "Zoë Müller <zoe@example.com>"
    assert "karas@idibu.com" in mail["To"]
    (attachment,) = mail.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content()) == ("Jane Doe CV.pdf", A_PDF)
    html = mail.get_body(("html",))
    assert html is not None
    assert "hello" in html.get_content()


def test_an_email_can_miss_or_bend_anything() -> None:
    raw = an_email(
        None, name=None, text=None, html="<p>x</p>", documents=(), headers={"To": None, "X-iTrackID-Type": "9"}
    )
    mail = parsed(raw)
    assert "X-iTrackID" not in mail
    assert "To" not in mail
    assert mail["X-iTrackID-Type"] == "9"
    assert mail["From"].startswith("No_name <")
    assert mail.get_content_type() == "text/html"
    assert b"\n" not in raw.replace(b"\r\n", b"")


def test_every_kind_of_document_can_be_attached() -> None:
    documents = (
        a_document("a.txt", b"text \xff"),
        a_document("b.docx", b"PK"),
        a_document("c", b"", original_name=None),
    )
    attached = list(parsed(an_email(documents=documents)).iter_attachments())
    assert [part.get_payload(decode=True) for part in attached] == [b"text \xff", b"PK", b""]


def test_it_works_without_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import apptrack_ingest.testing"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- the contract suite against handlers that break it ------------------------------------------------------------------


class Bad:
    """An ATS that does whatever `keep` does with the candidates it has."""

    def __init__(self, keep: Callable[[list[Application], Application], Verdict | None]) -> None:
        self.held: list[Application] = []
        self._keep = keep

    async def handle(self, application: Application) -> Verdict | None:
        return self._keep(self.held, application)


def appends(held: list[Application], application: Application) -> Verdict:
    held.append(application)
    return Accepted(f"row-{len(held)}")


def keeps_the_first(held: list[Application], application: Application) -> Verdict:
    if not held:
        held.append(application)
    return Accepted()


def keeps_nothing(held: list[Application], application: Application) -> Verdict:
    return Accepted()


def forgets_to_answer(held: list[Application], application: Application) -> None:
    held[:] = [application]


def needs_everything(held: list[Application], application: Application) -> Verdict:
    return keeps_the_first(held, application) if application.client_reference else Rejected("no reference")


def minds_documents(held: list[Application], application: Application) -> Verdict:
    if any(not document.content for document in application.documents):
        raise ValueError
    return keeps_the_first(held, application)


def writes_latin_1(held: list[Application], application: Application) -> Verdict:
    (application.subject or "").encode("latin-1")
    return keeps_the_first(held, application)


class Suite(HandlerContract):
    held: ClassVar[list[Application]]

    def candidates(self) -> Sequence[Held]:
        return [Held(each.applicant_id, frozenset(d.sha256 for d in each.documents)) for each in type(self).held]


@pytest.mark.parametrize(
    ("test", "keep"),
    [
        ("an_application_becomes_a_candidate", keeps_nothing),
        ("an_application_becomes_a_candidate", forgets_to_answer),
        ("the_same_application_twice_leaves_one_candidate", appends),
        ("the_same_application_twice_at_a_time_leaves_one_candidate", appends),
        ("an_update_replaces_what_was_there", appends),
        ("an_update_replaces_what_was_there", keeps_the_first),
        ("two_applicants_are_two_candidates", keeps_the_first),
        ("everything_optional_may_be_missing", needs_everything),
        ("a_bad_document_does_not_cost_the_candidate", minds_documents),
        ("hostile_text_does_no_harm", writes_latin_1),
        ("after_a_timeout_it_can_be_repeated", appends),
        ("cancelled_anywhere_it_can_be_repeated", appends),
    ],
)
def test_the_suite_catches(test: str, keep: Any) -> None:
    handler = Bad(keep)
    suite = Suite()
    Suite.held = handler.held
    with pytest.raises(AssertionError):
        getattr(suite, f"test_{test}")(handler)


def test_every_test_of_the_suite_is_proved_above() -> None:
    (marks,) = (mark for mark in test_the_suite_catches.pytestmark)
    proved = {f"test_{test}" for test, _ in marks.args[1]}
    assert proved == {name for name in dir(HandlerContract) if name.startswith("test_")}


# --- the same for handlers that forget ----------------------------------------------------------------------------------


class Forgetful(Bad):
    """Keeps one candidate of each applicant but for the `blocked`, and forgets as `drop` does."""

    def __init__(self, drop: "Callable[[Forgetful, Person], int]") -> None:
        super().__init__(self._take)
        self._drop = drop
        self.blocked: set[str | None] = set()

    def _take(self, held: list[Application], application: Application) -> Verdict:
        if application.candidate.email in self.blocked:
            return Rejected("never again")
        held[:] = [each for each in held if each.applicant_id != application.applicant_id] + [application]
        return Accepted()

    def forget(self, person: Person) -> int:
        return self._drop(self, person)

    def drop(self, known: Callable[[Application], bool]) -> int:
        left = [each for each in self.held if not known(each)]
        erased, self.held[:] = len(self.held) - len(left), left
        return erased


def forgets_by_id_alone(ats: Forgetful, person: Person) -> int:
    return ats.drop(lambda each: each.applicant_id in person.applicant_ids)


def forgets_everybody(ats: Forgetful, person: Person) -> int:
    return ats.drop(lambda each: True)


def minds_capitals(ats: Forgetful, person: Person) -> int:
    return ats.drop(lambda each: each.candidate.email == person.email)


def pretends(ats: Forgetful, person: Person) -> int:
    return 1


def blocks_for_ever(ats: Forgetful, person: Person) -> int:
    ats.blocked.add(person.email)
    return minds_capitals(ats, person)


class ForgettingSuite(ForgettingContract):
    held: ClassVar[list[Application]]

    def candidates(self) -> Sequence[Held]:
        return [Held(each.applicant_id) for each in type(self).held]


@pytest.mark.parametrize(
    ("test", "drop"),
    [
        ("a_person_is_forgotten_and_nobody_else", forgets_everybody),
        ("a_person_is_forgotten_and_nobody_else", pretends),
        ("a_person_is_found_by_the_address_alone", forgets_by_id_alone),
        ("a_person_is_found_by_the_address_alone", minds_capitals),
        ("one_who_was_forgotten_can_apply_again", blocks_for_ever),
    ],
)
def test_the_forgetting_suite_catches(test: str, drop: Any) -> None:
    handler = Forgetful(drop)
    ForgettingSuite.held = handler.held
    with pytest.raises(AssertionError):
        getattr(ForgettingSuite(), f"test_{test}")(handler)


def test_every_test_of_the_forgetting_suite_is_proved_above() -> None:
    (marks,) = (mark for mark in test_the_forgetting_suite_catches.pytestmark)
    proved = {f"test_{test}" for test, _ in marks.args[1]}
    assert proved == {name for name in vars(ForgettingContract) if name.startswith("test_")}


def test_a_handler_without_the_hook_is_told_of_the_other_suite() -> None:
    with pytest.raises(AssertionError, match="use HandlerContract"):
        ForgettingSuite().test_one_who_was_forgotten_can_apply_again(Bad(keeps_the_first))
