"""The X-iTrackID-* headers read into job, source, owner and client reference (idibu's documentation)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from apptrack_ingest.model import HeldReason, Job, Owner, Source
from apptrack_ingest.parse.headers import (
    APPLICANT_ID,
    CLIENT_ID,
    Fields,
    read_applicant_id,
    read_integer,
    sorted_by_name,
)
from apptrack_ingest.parse.text import Text, decode_header, header_charset, unfold

T = TypeVar("T")

PREFIX = "X-iTrackID-"
# Every header documented beside the applicant's id, as it is written in the newer of the two documented spellings.
HEADERS = (
    "ClientReference",
    "ClientID",
    "PortalID",
    "Portal-Name",
    "ClientSettingsID",
    "ClientSettings-Name",
    "Office",
    "Team",
    "PostLogID",
    "JobID",
    "Title",
    "Reference",
    "Type",
)
_BLANK = b" \t\r\n"
_KEYS = {name: (PREFIX + name).lower().encode() for name in HEADERS}
_CANONICAL = {APPLICANT_ID, CLIENT_ID, *_KEYS.values()}


class Metadata(NamedTuple):
    """What idibu says of an application; what is missing or not to be believed is None, and a warning says why."""

    applicant_id: int | None
    id_problem: HeldReason | None
    client_id: int | None
    client_reference: str | None
    job: Job
    source: Source
    owner: Owner
    warnings: tuple[str, ...]


def read_metadata(fields: Fields) -> Metadata:
    """Read all metadata headers of a scanned header block; names are case-insensitive."""
    by_name = sorted_by_name(fields)
    reader = _Reader(by_name, header_charset(fields))
    applicant_id, problem = read_applicant_id(by_name.get(APPLICANT_ID, ()))
    return Metadata(
        applicant_id=applicant_id,
        id_problem=problem,
        client_id=reader.integer("ClientID"),
        client_reference=reader.key("ClientReference"),
        job=Job(reader.integer("JobID"), reader.text("Title"), reader.key("Reference"), reader.text("Type")),
        source=Source(reader.integer("PortalID"), reader.text("Portal-Name"), reader.integer("PostLogID")),
        owner=_owner(reader),
        warnings=tuple(reader.warnings),
    )


def canonical(fields: Fields) -> tuple[tuple[str, str], ...]:
    """The metadata as sorted (name, value) pairs without a trace of case, folding or encoding, for the digest. An empty
    header says nothing: relays drop such headers, and the copy is the same application."""
    by_name = sorted_by_name(fields)
    return tuple(
        sorted(
            {
                (name.decode("ascii"), " ".join(decode_header(value).value.split()))
                for name in _CANONICAL.intersection(by_name)
                for value in by_name[name]
                if value.strip()
            }
        )
    )


def split_owner(text: str | None) -> tuple[str | None, str | None]:
    """Split `Name (address)` into name and address; what does not fit the form is all name."""
    if not text:
        return None, None
    for opening, closing in ("()", "<>"):
        name, found, rest = text.rpartition(opening)
        address = rest.removesuffix(closing).strip()
        if found and rest.endswith(closing) and _looks_like_address(address):
            return name.strip() or None, address
    return (None, text) if _looks_like_address(text) else (text, None)


def _owner(reader: "_Reader") -> Owner:
    name, email = split_owner(reader.text("ClientSettings-Name"))
    return Owner(reader.integer("ClientSettingsID"), name, email, reader.text("Office"), reader.text("Team"))


def _looks_like_address(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    return bool(local and at and domain) and not any(character in text for character in " \t()<>,;")


@dataclass(slots=True)
class _Reader:
    """Reads one optional header at a time and keeps the warnings."""

    by_name: Mapping[bytes, Sequence[bytes]]
    hint: str | None
    warnings: list[str] = field(default_factory=list)

    def integer(self, name: str) -> int | None:
        raw = self._only(name, bytes)
        if raw is None:
            return None
        number = read_integer(raw)
        if number is None:
            self._warn(name, f"is not a number ({self._decode(raw).value[:100]!r}) and was left out")
        return number

    def text(self, name: str) -> str | None:
        """The value as well as it can be read; a guess is worth a warning, for a person can see through it."""
        found = self._only(name, self._decode)
        if found is not None and not found.certain:
            self._warn(name, "holds bytes of no certain charset; they were read as well as possible")
        return found.value or None if found else None

    def key(self, name: str) -> str | None:
        """A value that programs look things up by: read for certain or not at all, since a wrong key finds a wrong job."""
        found = self._only(name, lambda raw: (self._decode(raw), raw))
        if found is None:
            return None
        decoded, raw = found
        if not decoded.certain:
            sent = unfold(raw)[:100].decode("ascii", "backslashreplace")
            self._warn(name, f"cannot be decoded for certain and was left out; as sent: {sent!r}")
            return None
        return decoded.value or None

    def _only(self, name: str, read: Callable[[bytes], T]) -> T | None:
        """The one value of a header; None when missing, empty or repeated with another value."""
        values = self.by_name.get(_KEYS[name])
        raw = [value for value in values if value.strip(_BLANK)] if values else None
        if not raw:
            return None
        if len(raw) > 1 and len({self._decode(value) for value in dict.fromkeys(raw)}) > 1:
            self._warn(name, "is there more than once with different values and was left out")
            return None
        return read(raw[0])

    def _decode(self, raw: bytes) -> Text:
        return decode_header(raw, self.hint)

    def _warn(self, name: str, what: str) -> None:
        self.warnings.append(f"{PREFIX}{name} {what}")
