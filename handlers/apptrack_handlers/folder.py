"""The default handler: one directory for each applicant, for people to browse and for programs to pick up.

    <path>/<account>/<applicant id>/application.json
                                    delivery-<16 hex digits>/<documents>, application.eml
    <path>/<account>/.work/         half-written deliveries and locks; no business of a reader's

application.json is the truth: it names the delivery it belongs to and each document's file. An update puts a new
delivery beside the old one and then replaces application.json in one step, so that a reader finds a complete candidate
at any moment, also after a kill -9. The delivery before stays until the next one, for a reader who is still at it.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from apptrack_handlers.file_names import file_names
from apptrack_handlers.places import LOCKS, Opened, lock, locked, make_directory, sync, sync_directory
from apptrack_handlers.readable_json import readable_json
from apptrack_ingest import Accepted, Application, Person, Verdict, to_payload

APPLICATION = "application.json"
MAIL = "application.eml"
WORK = ".work"
DELIVERY = "delivery-"
OPEN_FILES = 16
"""So many are written before they are synced: the file system takes them up together, with one write of its journal."""


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
        self._begun: set[str] = set()
        self._beginning = threading.Lock()

    def handle(self, application: Application) -> Verdict:
        """File the application; the same idempotency key again changes nothing. The remote id is account/applicant id."""
        account = self._account(application.account)
        applicant = str(int(application.applicant_id))
        if account not in self._begun:
            self._begin(account)
        with self._at(account, applicant) as directory:
            self._store(application, directory, applicant)
        return Accepted(f"{application.account}/{applicant}")

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
        if not Path(account).is_dir():
            return 0
        applicants = {str(number) for number in person.applicant_ids} | set(_with_address(account, person.email))
        return sum(self._remove(account, applicant) for applicant in sorted(applicants))

    def _begin(self, account: str) -> None:
        """Once for each account and process: make its directories durable, remove what earlier processes left."""
        with self._beginning:
            if account in self._begun:
                return
            self._make_work(account)
            with suppress(PermissionError):  # whoever was killed while making the account's may not have synced it
                sync_directory(self.settings.path)
            self._sweep(Path(account, WORK))
            self._begun.add(account)

    def _make_work(self, account: str) -> None:
        work = Path(account, WORK)
        make_directory(work, self._directory_mode)
        with suppress(FileExistsError):
            (work / LOCKS).touch(0o600, exist_ok=False)
            if os.geteuid() == 0:  # `forget`, called by root: the service must be able to open it
                owner = Path(account).stat()
                for made in (work, work / LOCKS):
                    os.chown(made, owner.st_uid, owner.st_gid)

    @contextmanager
    def _at(self, account: str, applicant: str) -> Iterator[int]:
        """The account's directory, opened, while this applicant in it is ours alone."""
        with Opened() as opened:
            try:
                directory = _enter(account, applicant, opened)
            except FileNotFoundError:  # somebody took it away
                self._make_work(account)
                directory = _enter(account, applicant, opened)
            yield directory

    def _remove(self, account: str, applicant: str) -> bool:
        """Out of a reader's sight in one step, then off the disk; True when there was something."""
        build = f"{WORK}/{applicant}"
        with self._at(account, applicant) as directory:
            left = os.access(build, os.F_OK, dir_fd=directory)  # of an attempt, or a removal, that was killed
            shutil.rmtree(build, ignore_errors=True, dir_fd=directory)
            found = Path(account, applicant).is_dir()
            if found:
                os.rename(applicant, build, src_dir_fd=directory, dst_dir_fd=directory)
                sync(directory)
                shutil.rmtree(build, dir_fd=directory)
            sync_directory(WORK, directory)
        return found or left

    def _account(self, name: str) -> str:
        if not name or name.startswith(".") or not name.isprintable() or "/" in name or "\\" in name:
            raise ValueError("the account's name cannot be the name of a directory")
        return f"{self.settings.path}/{name}"

    def _store(self, application: Application, directory: int, applicant: str) -> None:
        current = _current(f"{applicant}/{APPLICATION}", directory)
        if current.get("idempotency_key") == application.idempotency_key:
            sync_directory(applicant, directory)  # whoever was killed right after the last step had not synced it
            sync(directory)
            return
        build = f"{WORK}/{applicant}"
        delivery = DELIVERY + hashlib.sha256(application.idempotency_key.encode()).hexdigest()[:16]
        moved = False
        try:
            self._write(application, build, delivery, directory)
            if current or not _moved(build, applicant, directory):
                _replace(applicant, build, delivery, str(current.get("delivery")), directory)
            else:
                moved = True
                sync(directory)
        finally:
            if not moved:
                shutil.rmtree(build, ignore_errors=True, dir_fd=directory)

    # --- writing ------------------------------------------------------------------------------------------------------

    @property
    def _directory_mode(self) -> int:
        return 0o750 if self.settings.group_readable else 0o700

    @property
    def _file_mode(self) -> int:
        return 0o640 if self.settings.group_readable else 0o600

    def _write(self, application: Application, build: str, delivery: str, directory: int) -> None:
        """A complete candidate in `build`, on the disk when this returns: all but its own name, thrown away by a crash."""
        with Opened() as opened:
            root = self._new_directory(build, directory, opened)
            below = self._new_directory(delivery, root, opened)
            payload = to_payload(application, documents="names")
            names = file_names((document.name for document in application.documents), reserved=[MAIL])
            files = []
            for name, document, described in zip(names, application.documents, payload["documents"], strict=True):
                files.append((below, name, document.content))
                described["file"] = f"{delivery}/{name}"
            mail = application.raw if self.settings.mail else b""
            if mail:
                files.append((below, MAIL, mail))
            payload |= {"delivery": delivery, "mail": f"{delivery}/{MAIL}" if mail else None}
            files.append((root, APPLICATION, readable_json(payload) + b"\n"))
            for start in range(0, len(files), OPEN_FILES):
                self._write_files(files[start : start + OPEN_FILES])
            sync(below)
            sync(root)

    def _new_directory(self, name: str, inside: int, opened: Opened) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=inside)
        except FileExistsError:  # of an attempt that was killed
            shutil.rmtree(name, dir_fd=inside)
            os.mkdir(name, 0o700, dir_fd=inside)
        descriptor = opened.open(name, os.O_RDONLY | os.O_DIRECTORY, inside)
        if self.settings.group_readable:  # which the umask may have refused
            os.fchmod(descriptor, self._directory_mode)
        return descriptor

    def _write_files(self, files: list[tuple[int, str, bytes]]) -> None:
        with Opened() as opened:
            descriptors = []
            for directory, name, content in files:
                descriptor = opened.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, directory)
                descriptors.append(descriptor)
                if self.settings.group_readable:
                    os.fchmod(descriptor, self._file_mode)
                written = os.write(descriptor, content)
                while written < len(content):
                    written += os.write(descriptor, memoryview(content)[written:])
            for descriptor in descriptors:
                os.fsync(descriptor)

    def _sweep(self, work: Path) -> None:
        """What nobody is at was left half-written by who was killed."""
        for applicant in {entry.name.removesuffix(".lock") for entry in work.iterdir() if entry.name != LOCKS}:
            with locked(str(work), applicant, wait=False) as ours:
                if ours:
                    shutil.rmtree(work / applicant, ignore_errors=True)
                    (work / f"{applicant}.lock").unlink(missing_ok=True)  # each had a file of its own once


def _enter(account: str, applicant: str, opened: Opened) -> int:
    directory = opened.open(account, os.O_RDONLY | os.O_DIRECTORY)
    lock(opened.open(f"{WORK}/{LOCKS}", os.O_RDWR, directory), applicant)
    return directory


def _with_address(account: str, address: str) -> Iterator[str]:
    """The applicants whose application.json names this address as the candidate's, capitals or not."""
    wanted = address.strip().casefold()
    for path in Path(account).glob(f"*/{APPLICATION}"):
        candidate = _current(path).get("candidate")
        email = candidate.get("email") if isinstance(candidate, dict) else None
        if isinstance(email, str) and email.strip().casefold() == wanted and path.parent.name != WORK:
            yield path.parent.name


def _current(path: str | Path, inside: int | None = None) -> dict[str, Any]:
    """What this application.json says; empty when there is none or somebody spoiled it."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY, dir_fd=inside), "rb") as file:
            known = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _moved(build: str, applicant: str, directory: int) -> bool:
    """Shows the candidate for the first time; False where something has that name already."""
    try:
        os.rename(build, applicant, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        return False
    return True


def _replace(applicant: str, build: str, delivery: str, current: str, directory: int) -> None:
    """Put the delivery from `build` into the candidate's directory; before the last rename a reader sees the old one."""
    candidate = os.open(applicant, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
    try:
        for name in os.listdir(candidate):  # noqa: PTH208 - of what is open
            if name.startswith(DELIVERY) and name != current:
                shutil.rmtree(name, dir_fd=candidate)
        os.rename(f"{build}/{delivery}", delivery, src_dir_fd=directory, dst_dir_fd=candidate)
        sync(candidate)
        os.replace(f"{build}/{APPLICATION}", APPLICATION, src_dir_fd=directory, dst_dir_fd=candidate)
        sync(candidate)
    finally:
        os.close(candidate)
