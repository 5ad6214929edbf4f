"""A very small ATS for trying the webhook handler: it checks the signature, keeps candidates as files, and lists them.

    ATS_WEBHOOK_SECRETS=whsec_… ATS_DATA=/data python ats.py

POST /applications   an application, signed as Standard Webhooks 1.0 says; answers 201 (new), 200 (update) or 409 (had it)
GET /candidates      what is kept, without the documents' bytes
GET /healthz         200

It shows what an endpoint of yours has to do, with the standard library alone; it is no ATS to keep candidates in.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MAX_BODY = 64 * 1024 * 1024
"""Bytes; a mail of 30 MB with its documents in base64 fits."""
TOLERANCE = 300
"""Seconds a request's timestamp may differ from our clock; older ones may be replays (Standard Webhooks, verifying)."""


class Refused(Exception):
    """The request is answered with `status` and a reason in words."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


# --- the signature ----------------------------------------------------------------------------------------------------


def key_of(secret: str) -> bytes:
    """The key that a secret (`whsec_` and base64) stands for; ValueError when it is none."""
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if len(key) < 24:
        raise ValueError("a secret must be whsec_ and at least 24 bytes in base64")
    return key


def verify(headers: Message | Mapping[str, str], body: bytes, keys: list[bytes], now: float) -> None:
    """Raises Refused unless one of the signatures was made with one of `keys`, and lately (`now` in epoch seconds)."""
    message_id, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or not (sent.isascii() and sent.isdigit()):
        raise Refused(401, "webhook-id or webhook-timestamp is missing")
    if abs(now - int(sent)) > TOLERANCE:
        raise Refused(401, "webhook-timestamp is too far from our clock")
    content = f"{message_id}.{sent}.".encode() + body
    wanted = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)) for key in keys]
    given = [part.removeprefix("v1,").encode() for part in headers.get("webhook-signature", "").split(" ")]
    if not any(hmac.compare_digest(ours, theirs) for ours in wanted for theirs in given):
        raise Refused(401, "no signature fits")


# --- the candidates ---------------------------------------------------------------------------------------------------


class Candidates:
    """One JSON file for each candidate, in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)

    def keep(self, application: dict[str, Any]) -> tuple[int, str]:
        """Stores a new candidate or an update; returns the HTTP status and the remote id."""
        remote_id = self._remote_id(application)
        file = self._directory / f"{remote_id}.json"
        with self._lock:
            known = file.exists()
            if known and _read(file)["idempotency_key"] == application["idempotency_key"]:
                return 409, remote_id
            half_written = file.with_suffix(".new")
            half_written.write_text(json.dumps(application), encoding="utf-8")
            half_written.replace(file)
        return (200 if known else 201), remote_id

    def all(self) -> list[dict[str, Any]]:
        """What a recruiter would see first of each."""
        return [_row(file.stem, _read(file)) for file in sorted(self._directory.glob("*.json"))]

    def _remote_id(self, application: dict[str, Any]) -> str:
        account, applicant = application.get("account"), application.get("applicant_id")
        if not isinstance(account, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", account):
            raise Refused(400, "account is no account's name")
        if not isinstance(applicant, int) or not isinstance(application.get("idempotency_key"), str):
            raise Refused(400, "applicant_id or idempotency_key is missing")
        return f"{account}-{applicant}"


def _read(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return values


def _row(remote_id: str, application: dict[str, Any]) -> dict[str, Any]:
    candidate, job = application.get("candidate") or {}, application.get("job") or {}
    return {
        "remote_id": remote_id,
        "name": candidate.get("name"),
        "email": candidate.get("email"),
        "job": job.get("title"),
        "client_reference": application.get("client_reference"),
        "documents": [document.get("name") for document in application.get("documents") or []],
    }


# --- HTTP -------------------------------------------------------------------------------------------------------------


class Ats(ThreadingHTTPServer):
    """The server with what its requests need."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], keys: list[bytes], candidates: Candidates) -> None:
        self.keys = keys
        self.candidates = candidates
        super().__init__(address, Endpoint)


class Endpoint(BaseHTTPRequestHandler):
    """One request."""

    server: Ats
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Health, and the list of candidates."""
        if self.path == "/healthz":
            self._answer(200, {"status": "ok"})
        elif self.path == "/candidates":
            self._answer(200, {"candidates": self.server.candidates.all()})
        else:
            self._answer(404, {"error": "there is /applications to post to, /candidates and /healthz"})

    def do_POST(self) -> None:
        """An application."""
        try:
            status, remote_id = self._take()
            self._answer(status, {"remote_id": remote_id})
        except Refused as refused:
            self._answer(refused.status, {"error": refused.reason})

    def _take(self) -> tuple[int, str]:
        body = self._body()
        if self.path != "/applications":
            raise Refused(404, "post to /applications")
        verify(self.headers, body, self.server.keys, time.time())
        try:
            application = json.loads(body)
        except ValueError:
            raise Refused(400, "the body is no JSON") from None
        if not isinstance(application, dict):
            raise Refused(400, "the body is no JSON object")
        return self.server.candidates.keep(application)

    def _body(self) -> bytes:
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY:
            self.close_connection = True
            raise Refused(413 if length else 411, f"send a content-length of at most {MAX_BODY}")
        return self.rfile.read(int(length))

    def _answer(self, status: int, values: dict[str, Any]) -> None:
        body = json.dumps(values, indent=2).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until stopped."""
    keys = [key_of(secret) for secret in os.environ.get("ATS_WEBHOOK_SECRETS", "").split()]
    if not keys:
        sys.exit("set ATS_WEBHOOK_SECRETS to the secret the webhook handler signs with (several: separated by spaces)")
    address = (os.environ.get("ATS_HOST", "127.0.0.1"), int(os.environ.get("ATS_PORT", "8080")))
    Ats(address, keys, Candidates(Path(os.environ.get("ATS_DATA", "ats-data")))).serve_forever()


if __name__ == "__main__":
    main()
