"""The content digest: equal for two copies of one application, whatever relays did to their transport."""

import hashlib
from collections.abc import Iterable

VERSION = "v1"


def content_digest(metadata: Iterable[tuple[str, str]], subject: str | None, leaves: Iterable[bytes]) -> str:
    """SHA-256 over the canonical metadata, the decoded subject and the decoded leaves in order (see `canonical_leaf`).

    Each field is preceded by its length, so that no two different contents run together to the same bytes. Headers of
    the transport, boundaries and transfer encodings are not in it. A change of this rule needs a new VERSION.
    """
    digest = hashlib.sha256()
    for name, value in metadata:
        _add(digest, name.encode())
        _add(digest, value.encode())
    _add(digest, b"subject")
    _add(digest, " ".join((subject or "").split()).encode())
    for leaf in leaves:
        _add(digest, leaf)
    return f"{VERSION}:{digest.hexdigest()}"


def canonical_leaf(content_type: str, content: bytes) -> bytes:
    """A leaf's bytes; of text without what transport changes: line ends and the empty lines after the last one."""
    if not content_type.startswith(("text/", "message/")):
        return content
    return content.replace(b"\r\n", b"\n").rstrip(b"\r\n")


def _add(digest: "hashlib._Hash", data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "big"))
    digest.update(data)
