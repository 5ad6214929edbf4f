"""The default handler: one directory for each applicant, for people to browse and for programs to pick up.

    <path>/<account>/<applicant id>/application.json
                                    delivery-<16 hex digits>/<documents>, application.eml
    <path>/<account>/.work/         half-written deliveries and locks; no business of a reader's

application.json is the truth: it names the delivery it belongs to and each document's file. An update puts a new
delivery beside the old one and then replaces application.json in one step, so that a reader finds a complete candidate
at any moment, also after a kill -9. The delivery before stays until the next one, for a reader who is still at it.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from apptrack_handlers.file_names import file_names
from apptrack_handlers.readable_json import readable_json
from apptrack_ingest import Accepted, Application, Person, Verdict, to_payload

APPLICATION = "application.json"
MAIL = "application.eml"
WORK = ".work"
DELIVERY = "delivery-"


class Folder:
    """Files each application under `path`; synchronous, the product runs it in a thread."""

    class Settings(BaseModel):
        """`mail` keeps the mail as received beside the documents; `group_readable` opens the files to our group."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: Path = Path("applications")
        mail: bool = True
        group_readable: bool = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._swept: set[str] = set()

    def handle(self, application: Application) -> Verdict:
        """File the application; the same idempotency key again changes nothing. The remote id is account/applicant id."""
        account = self._account(application.account)
        applicant = str(int(application.applicant_id))
        self._make_directory(account / WORK)
        self._sweep(account)
        with _locked(account / WORK / f"{applicant}.lock"):
            self._store(application, account / applicant, account / WORK / applicant)
        return Accepted(f"{account.name}/{applicant}")

    def check(self) -> str:
        """Whether files can be written under `path`; nothing is left there. OSError where not."""
        there = next(
            path for path in (self.settings.path.absolute(), *self.settings.path.absolute().parents) if path.exists()
        )
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
            file.flush()
        return f"files can be written in {there}"

    def forget(self, person: Person) -> int:
        """Remove the directories of a person: of these applicants, and of whoever has this address in application.json."""
        account = self._account(person.account)
        if not account.is_dir():
            return 0
        applicants = {str(number) for number in person.applicant_ids} | set(_with_address(account, person.email))
        return sum(self._remove(account, applicant) for applicant in sorted(applicants))

    def _remove(self, account: Path, applicant: str) -> bool:
        """Out of a reader's sight in one step, then off the disk; True when there was something."""
        candidate, build = account / applicant, account / WORK / applicant
        self._make_directory(account / WORK)
        with _locked(account / WORK / f"{applicant}.lock"):
            left = build.exists()  # of an attempt, or a removal, that was killed
            shutil.rmtree(build, ignore_errors=True)
            found = candidate.is_dir()
            if found:
                candidate.rename(build)
                _sync(account)
                shutil.rmtree(build)
            _sync(account / WORK)
        return found or left

    def _account(self, name: str) -> Path:
        if not name or name.startswith(".") or not name.isprintable() or "/" in name or "\\" in name:
            raise ValueError("the account's name cannot be the name of a directory")
        return self.settings.path / name

    def _store(self, application: Application, candidate: Path, build: Path) -> None:
        current = _current(candidate)
        if current.get("idempotency_key") == application.idempotency_key:
            return
        shutil.rmtree(build, ignore_errors=True)  # of an attempt that was killed
        delivery = DELIVERY + hashlib.sha256(application.idempotency_key.encode()).hexdigest()[:16]
        try:
            self._write(application, build, delivery)
            if candidate.exists():
                _replace(candidate, build, delivery, str(current.get("delivery")))
            else:
                build.rename(candidate)
                _sync(candidate.parent)
        finally:
            shutil.rmtree(build, ignore_errors=True)

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write(self, application: Application, build: Path, delivery: str) -> None:
        """A complete candidate in `build`, on the disk when this returns."""
        self._make_directory(build / delivery)
        payload = to_payload(application, documents="names")
        names = file_names((document.name for document in application.documents), reserved=[MAIL])
        for name, document, described in zip(names, application.documents, payload["documents"], strict=True):
            self._write_file(build / delivery / name, document.content)
            described["file"] = f"{delivery}/{name}"
        mail = application.raw if self.settings.mail else b""
        if mail:
            self._write_file(build / delivery / MAIL, mail)
        payload |= {"delivery": delivery, "mail": f"{delivery}/{MAIL}" if mail else None}
        self._write_file(build / APPLICATION, readable_json(payload).encode() + b"\n")
        _sync(build / delivery)
        _sync(build)

    def _write_file(self, path: Path, content: bytes) -> None:
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o640 if self.settings.group_readable else 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _make_directory(self, path: Path) -> None:
        """With its parents, each durable in its own parent; modes are set only on what we make."""
        if path.is_dir():
            return
        self._make_directory(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
            path.chmod(0o750 if self.settings.group_readable else 0o700)
        _sync(path.parent)

    def _sweep(self, account: Path) -> None:
        """Once for each account and process: remove what earlier processes left half-written."""
        if account.name in self._swept:
            return
        self._swept.add(account.name)
        for applicant in {entry.name.removesuffix(".lock") for entry in (account / WORK).iterdir()}:
            with _locked(account / WORK / f"{applicant}.lock", wait=False) as ours:
                if ours:
                    shutil.rmtree(account / WORK / applicant, ignore_errors=True)


def _with_address(account: Path, address: str) -> Iterator[str]:
    """The applicants whose application.json names this address as the candidate's, capitals or not."""
    wanted = address.strip().casefold()
    for path in account.glob(f"*/{APPLICATION}"):
        candidate = _current(path.parent).get("candidate")
        email = candidate.get("email") if isinstance(candidate, dict) else None
        if isinstance(email, str) and email.strip().casefold() == wanted and path.parent.name != WORK:
            yield path.parent.name


def _current(candidate: Path) -> dict[str, Any]:
    """What application.json says; empty when there is none or somebody spoiled it."""
    try:
        known = json.loads((candidate / APPLICATION).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _replace(candidate: Path, build: Path, delivery: str, current: str) -> None:
    """Put the delivery from `build` into the candidate's directory; before the last rename a reader sees the old one."""
    for stale in candidate.glob(f"{DELIVERY}*"):
        if stale.name != current:
            shutil.rmtree(stale)
    (build / delivery).rename(candidate / delivery)
    _sync(candidate)
    (build / APPLICATION).replace(candidate / APPLICATION)
    _sync(candidate)


def _sync(directory: Path) -> None:
    """A name in a directory is durable only when the directory is synced too."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not sync directories
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` against other threads and processes; without `wait`, False when it is taken."""
    descriptor = _take(path, wait)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path, wait: bool) -> int | None:
    """The file goes away with the lock: who waited for it then holds the lock of no file, and tries again."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(descriptor, path):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return None
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
