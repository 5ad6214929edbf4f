"""What idibu would say to a request, as far as its documents tell (docs/sandbox.md lists what was decided beyond them)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from apptrack_ingest.idibu import xml
from apptrack_ingest.idibu.sandbox_answers import Said, date
from apptrack_ingest.idibu.sandbox_store import Saved, Store


@dataclass(frozen=True, slots=True)
class Call:
    """A request to an endpoint, taken apart: `path` without query and hash, `account` None for a wrong hash, `applicant`
    the id as given (None: no id), `data` the XML sent, `name` the method of idibu, `form` all fields of a POST."""

    method: str
    path: str
    params: Mapping[str, str]
    account: str | None
    applicant: str | None
    data: str | None
    name: str = "applicant-status"
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def applicant_id(self) -> int | None:
        """The id, when it is one: a positive integer."""
        return _integer(self.applicant) or None


def judge(call: Call, store: Store, now: float) -> Said:
    """idibu's answer, and what it would keep; nothing is kept yet. `now` (epoch) stands in for an empty date-processed."""
    if call.account is None:
        return Said(False, "Invalid hash")
    if call.applicant is not None and call.applicant_id is None:
        return Said(False, "Invalid applicant id")
    if call.method == "POST":
        return _post(call, now)
    if call.applicant_id is not None:
        return _one(store, call.account, call.applicant_id)
    return _list(store, call.account, call.params)


def _post(call: Call, now: float) -> Said:
    if call.applicant_id is None:
        return Said(False, "No applicant id")
    if not call.data:
        return Said(False, "No data")
    try:
        root = xml.parse(call.data.encode(errors="replace"))
    except xml.XmlError:
        return Said(False, "The data is no valid XML")
    if xml.name(root) != "applicant":
        return Said(False, "The data is no applicant")
    fields = {name: xml.text_of(root, name) for name in ("status", "remote-id", "error-message", "date-processed")}
    saved = Saved(*fields.values())
    problem = _problem(saved)
    if problem:
        return Said(False, problem)
    saved = Saved(saved.status, saved.remote_id, saved.error_message, saved.date_processed or date(now))
    return Said(True, "Applicant status saved", saved=saved)


def _problem(saved: Saved) -> str:
    if saved.status not in ("success", "fail"):
        return "Unknown status" if saved.status else "No status"
    return "" if not saved.date_processed or _is_date(saved.date_processed) else "Invalid date-processed"


def _is_date(text: str) -> bool:
    """Whether it is written `YYYY-MM-DD hh:mm:ss`; strptime alone would take `2016-6-3 1:2:3` too."""
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").isoformat(" ") == text
    except ValueError:
        return False


def _one(store: Store, account: str, applicant_id: int) -> Said:
    held = store.applicant(account, applicant_id)
    return Said(True, applicants=(held,)) if held else Said(False, "Applicant not found")


def _list(store: Store, account: str, params: Mapping[str, str]) -> Said:
    pattern = params.get("remote-id", "*")
    held = [one for one in store.applicants(account) if matches(pattern, one.remote_id)]
    offset = _integer(params.get("offset")) or 0
    count = _integer(params.get("count", params.get("limit")))
    page = 10 if count is None else min(max(count, 1), 100)
    return Said(True, applicants=tuple(held[offset : offset + page]))


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is `pattern`, `*` standing for any text; in linear time, as no regular expression would be."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    last = rest.pop()
    if not (text.startswith(first) and text.endswith(last) and len(text) >= len(first) + len(last)):
        return False
    place, end = len(first), len(text) - len(last)
    for part in rest:
        place = text.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


def _integer(given: str | None) -> int | None:
    """A number not below 0 of at most 18 digits; None for anything else."""
    return xml.number_of(given) if given else None
