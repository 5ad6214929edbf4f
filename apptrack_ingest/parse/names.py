"""File names from strangers made safe on any system and unique within one application."""

import mimetypes
import re
import unicodedata

# File systems allow 255 bytes; the rest is left for what handlers put before and after (an id, ".part", a counter).
LONGEST_NAME = 150
LONGEST_EXTENSION = 16
# Microsoft's "Naming Files, Paths, and Namespaces": device names, whatever extension follows.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"|?*\\/]')
# Controls, formats (bidirectional overrides, zero widths), surrogates, private and unassigned code points.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
# Where the system's table of types is thin or names a rarer extension.
_EXTENSIONS = {
    "message/rfc822": ".eml",
    "message/delivery-status": ".txt",
    "message/disposition-notification": ".txt",
    "message/external-body": ".txt",
    "message/global": ".eml",
    "text/rfc822-headers": ".txt",
    "text/plain": ".txt",
    "text/html": ".html",
    "text/calendar": ".ics",
    "text/rtf": ".rtf",
    "application/rtf": ".rtf",
    "image/jpeg": ".jpg",
    "application/ms-tnef": ".dat",
    "application/octet-stream": ".bin",
    "application/msword": ".doc",
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}


class SafeNames:
    """Gives out names for the documents of one application; no two are equal on a system that ignores case."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}

    def name(self, original: str | None, content_type: str) -> str:
        """A safe name near to what the mail said, with an extension, at most 150 bytes of UTF-8."""
        stem, extension = _split(_cleaned(original or ""))
        if not extension or (content_type == "message/rfc822" and extension.lower() != ".eml"):
            stem, extension = stem + extension, extension_of(content_type)
        stem = stem.strip(" .") or "document"
        if _DEVICES.fullmatch(stem.partition(".")[0].strip()):
            stem = "_" + stem
        return self._unique(stem, extension)

    def _unique(self, stem: str, extension: str) -> str:
        first = _fitted(stem, "", extension)
        number = self._last.get(_folded(first), 1)
        candidate = first
        while _folded(candidate) in self._taken:
            number += 1
            candidate = _fitted(stem, f"-{number}", extension)
        self._last[_folded(first)] = number
        self._taken.add(_folded(candidate))
        return candidate


def extension_of(content_type: str) -> str:
    """The usual extension of a MIME type, with its dot; `.bin` where there is none."""
    return _EXTENSIONS.get(content_type) or mimetypes.guess_extension(content_type, strict=False) or ".bin"


def _cleaned(original: str) -> str:
    """The last component of a path, composed (NFC), without anything invisible or forbidden on some system."""
    last = original.rstrip("\\/ ").replace("\\", "/").rpartition("/")[2]
    visible = last if last.isascii() and last.isprintable() else _visible(last)
    return " ".join(_FORBIDDEN.sub("_", visible).split()).strip(" .")


def _visible(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) not in _INVISIBLE)


def _split(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    fits = dot and extension and len((dot + extension).encode()) <= LONGEST_EXTENSION and " " not in extension
    return (stem, dot + extension) if fits else (name, "")


def _fitted(stem: str, number: str, extension: str) -> str:
    room = LONGEST_NAME - len((number + extension).encode())
    cut = stem.encode()[:room].decode("utf-8", "ignore").rstrip(" .")
    return cut + number + extension


def _folded(name: str) -> str:
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
