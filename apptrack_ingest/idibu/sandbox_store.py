"""Everything the sandbox was ever told, in a file of JSON lines that outlives its being killed at any moment."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from apptrack_ingest.idibu.sandbox_world import Change, World, change_from


@dataclass(frozen=True, slots=True)
class Saved:
    """The fields of a status that was accepted; dates as written in the XML, `date_processed` never empty."""

    status: str
    remote_id: str
    error_message: str
    date_processed: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request to an endpoint, in the order of arrival. `at` is epoch seconds; `account` None: a wrong hash; empty:
    about no single account.

    `path` is without query and hash; `data` is the form field as sent, secrets masked; `answer` says in words what was
    answered or done; `saved` or `change` is set where it changed what the sandbox holds; `repeated` where the same
    account sent the same data for the same applicant before. `call` names the method of idibu.
    """

    at: float
    method: str
    path: str
    account: str | None
    applicant_id: int | None
    data: str | None
    answer: str
    http_status: int | None
    saved: Saved | None = None
    repeated: bool = False
    number: int = 0
    call: str = "applicant-status"
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Applicant:
    """What the sandbox holds of one applicant: the last status, when first and last told, how often, how differently.

    `contents` counts distinct (status, remote id, error message): 1 when all posts said the same.
    """

    account: str
    id: int
    status: str
    remote_id: str
    error_message: str
    date_processed: str
    created: float
    modified: float
    posts: int
    contents: int


class Store:
    """The requests, and what follows from them. With a file (mode 0600) it starts from what the file holds.

    A line reaches the operating system before the request is answered, so a killed sandbox has lost nothing it confirmed;
    a line torn by a kill is cut off at the next start.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.world = World()
        self._applicants: dict[tuple[str, int], Applicant] = {}
        self._seen: set[tuple[str | None, int | None, str]] = set()
        self._contents: dict[tuple[str, int], set[tuple[str, str, str]]] = {}
        self._file = None if file is None else self._opened(file)

    def add(self, request: Request) -> Request:
        """Keeps a request; its number and whether it is a repetition are filled in."""
        request = replace(request, number=len(self.requests) + 1, repeated=self._is_repeated(request))
        if self._file:
            self._file.write(json.dumps(asdict(request)).encode() + b"\n")
        self._apply(request)
        return request

    def applicants(self, account: str | None = None) -> list[Applicant]:
        """All applicants, or an account's, in the order they were first told of."""
        return [held for held in self._applicants.values() if account in (None, held.account)]

    def applicant(self, account: str, applicant_id: int) -> Applicant | None:
        """What is held of one applicant."""
        return self._applicants.get((account, applicant_id))

    def lose(self, account: str, applicant_id: int) -> None:
        """Forgets an applicant's status, as idibu may after a restored backup. A file brings it back at the next start."""
        self._applicants.pop((account, applicant_id), None)

    def close(self) -> None:
        """Closes the file; what was added stays readable."""
        if self._file:
            self._file.close()
            self._file = None

    def _opened(self, path: Path) -> BinaryIO:
        path.touch(mode=0o600)
        file = path.open("r+b", buffering=0)
        whole = 0
        for line in _whole_lines(path):
            self._apply(_request(json.loads(line)))
            whole += len(line)
        file.truncate(whole)
        file.seek(whole)
        return file

    def _is_repeated(self, request: Request) -> bool:
        return request.data is not None and (request.account, request.applicant_id, request.data) in self._seen

    def _apply(self, request: Request) -> None:
        self.requests.append(request)
        if request.data is not None:
            self._seen.add((request.account, request.applicant_id, request.data))
        if request.change:
            self.world.apply(request.change)
        if request.saved and request.account is not None and request.applicant_id is not None:
            self._update((request.account, request.applicant_id), request.saved, request.at)

    def _update(self, key: tuple[str, int], saved: Saved, at: float) -> None:
        """An update replaces all fields: one left out is empty afterwards."""
        before = self._applicants.get(key)
        contents = self._contents.setdefault(key, set())
        contents.add((saved.status, saved.remote_id, saved.error_message))
        self._applicants[key] = Applicant(
            *key,
            **asdict(saved),
            created=before.created if before else at,
            modified=at,
            posts=before.posts + 1 if before else 1,
            contents=len(contents),
        )


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        yield from (line for line in lines if line.endswith(b"\n"))


def _request(values: dict[str, Any]) -> Request:
    """A line of the file; older ones know of no changes."""
    saved, change = values.pop("saved"), values.pop("change", None)
    return Request(**values, saved=saved and Saved(**saved), change=change and change_from(change))
