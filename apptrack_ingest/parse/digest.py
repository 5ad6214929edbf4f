"""The content digest: equal for two copies of one application, whatever relays did to their transport."""

import hashlib
from collections.abc import Iterable

VERSION = "v1"


class ContentDigest:
    """SHA-256 over the canonical metadata, the decoded subject and the decoded leaves in order, fed one leaf at a time.

    Each field is preceded by its length, so that no two different contents run together to the same bytes. Headers of
    the transport, boundaries and transfer encodings are not in it, and neither is what was unpacked from a leaf: how much
    of that we can read may change. A change of this rule needs a new VERSION.
    """

    def __init__(self, metadata: Iterable[tuple[str, str]], subject: str | None) -> None:
        self._digest = hashlib.sha256()
        for name, value in metadata:
            self._add(name.encode())
            self._add(value.encode())
        self._add(b"subject")
        self._add(" ".join((subject or "").split()).encode())

    def add_leaf(self, content_type: str, content: bytes) -> None:
        self._add(canonical_leaf(content_type, content))

    def __str__(self) -> str:
        return f"{VERSION}:{self._digest.hexdigest()}"

    def _add(self, data: bytes) -> None:
        self._digest.update(len(data).to_bytes(8, "big"))
        self._digest.update(data)


def canonical_leaf(content_type: str, content: bytes) -> bytes:
    """A leaf's bytes; of text without what transport changes: line ends and the empty lines after the last one."""
    if not content_type.startswith(("text/", "message/")):
        return content
    return content.replace(b"\r\n", b"\n").rstrip(b"\r\n")
