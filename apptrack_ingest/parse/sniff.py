"""What a file really is, by its bytes; nothing is opened, unpacked or run."""

import filetype

# As far as filetype's matchers look.
_SNIFFED_BYTES = 8192
# Formats that are text themselves. All others hold control characters early on, and have beginnings so short ("BM",
# "MZ", "CWS") that a sentence can have them too.
_TEXTUAL = ((b"%PDF", "application/pdf"), (rb"{\rtf", "application/rtf"), (b"%!PS", "application/postscript"))
_MAGIC = frozenset(magic[:1] for magic, _ in _TEXTUAL)
_CONTROLS = bytes({*range(0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20)})
_BOM = b"\xef\xbb\xbf"

# Microsoft's compound file ([MS-CFB], section 2.2) and the streams in its directory that tell whose it is.
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
OLE = "application/x-ole-storage"
_STREAMS = (
    ("__nameid_version1.0", "application/vnd.ms-outlook"),
    ("WordDocument", "application/msword"),
    ("Workbook", "application/vnd.ms-excel"),
    ("PowerPoint Document", "application/vnd.ms-powerpoint"),
)
# The end of a zip file lists its entries (APPNOTE.TXT, section 4.3.12).
_ZIP = b"PK\x03\x04"
_ZIP_DIRECTORY = 64 * 1024
_OFFICE = "application/vnd.openxmlformats-officedocument."
_ENTRIES = (
    (b"word/document.xml", _OFFICE + "wordprocessingml.document"),
    (b"xl/workbook.xml", _OFFICE + "spreadsheetml.sheet"),
    (b"ppt/presentation.xml", _OFFICE + "presentationml.presentation"),
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EXECUTABLE_TYPES = _words(
    "application/x-msdownload application/x-executable application/wasm application/x-deb application/x-rpm"
    " application/x-google-chrome-extension application/x-shockwave-flash"
)
_EXECUTABLE_STARTS = (
    b"#!",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"dex\n",
)
# What a double click starts on Windows and elsewhere (Microsoft's "Blocked attachments in Outlook", the usual part).
_EXECUTABLE_EXTENSIONS = _words(
    "ade adp apk app appx bat chm cmd com cpl dll dmg elf exe hta inf ins isp jar jnlp js jse lib lnk mde msc msi msix msp"
    " mst pif pkg ps1 psm1 reg scf scr sct sh sys vb vbe vbs vxd wsc wsf wsh xll"
)
_ARCHIVE_TYPES = _words(
    "application/zip application/x-zip application/x-zip-compressed application/x-tar application/x-rar-compressed"
    " application/vnd.rar application/x-rar application/gzip application/x-gzip application/x-bzip2 application/x-xz"
    " application/x-7z-compressed application/x-lzip application/x-lzop application/x-lz4 application/zstd"
    " application/x-compress application/vnd.ms-cab-compressed application/x-unix-archive application/x-brotli"
)
_ARCHIVE_EXTENSIONS = _words("7z ace arj bz2 cab gz img iso lha lz lzh rar tar tbz2 tgz txz uue vhd xz z zip zst")


def sniff(content: bytes) -> str | None:
    """The MIME type the bytes tell, None when they tell nothing (plain text, HTML, damaged files)."""
    head = content[:_SNIFFED_BYTES]
    start = head.removeprefix(_BOM).lstrip(b" \t\r\n")
    textual = next((mime for magic, mime in _TEXTUAL if start.startswith(magic)), None) if start[:1] in _MAGIC else None
    if textual or len(head.translate(None, _CONTROLS)) == len(head):
        return textual
    compound = content.startswith(_COMPOUND)
    if compound and (whose := _compound_type(content)):
        return whose
    found = filetype.guess(head)
    mime = str(found.mime) if found is not None else None
    if compound:
        return mime or OLE
    return (_zip_type(content) or mime) if mime == "application/zip" else mime


def flags_of(name: str, content: bytes, claimed: str, sniffed: str | None) -> tuple[str, ...]:
    """What a careful reader wants to know before opening a file: see `Document.flags`."""
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    found = {
        "executable": sniffed in _EXECUTABLE_TYPES
        or extension in _EXECUTABLE_EXTENSIONS
        or content.startswith(_EXECUTABLE_STARTS),
        "archive": sniffed in _ARCHIVE_TYPES
        or (sniffed is None and (claimed in _ARCHIVE_TYPES or extension in _ARCHIVE_EXTENSIONS)),
        "encrypted": is_encrypted(content),
        "mismatch": sniffed is not None and not _fits(claimed, sniffed),
    }
    return tuple(flag for flag, there in found.items() if there)


def is_encrypted(content: bytes) -> bool:
    """A zip file whose first entry is encrypted (APPNOTE.TXT, section 4.4.4), an Office file with a password
    ([MS-OFFCRYPTO], section 2.3.4), or a PGP message (RFC 9580, section 6.2)."""
    if content.startswith(_ZIP):
        return len(content) > 6 and bool(content[6] & 1)
    if content.startswith(_COMPOUND):
        return "EncryptedPackage".encode("utf-16-le") in content
    return content.lstrip(b"\r\n")[:27] == b"-----BEGIN PGP MESSAGE-----"


def _compound_type(content: bytes) -> str | None:
    return next((mime for stream, mime in _STREAMS if stream.encode("utf-16-le") in content), None)


def _zip_type(content: bytes) -> str | None:
    directory = content[-_ZIP_DIRECTORY:]
    return next((mime for entry, mime in _ENTRIES if entry in directory), None)


# What means the same, or is so general that nothing contradicts it.
_GENERAL = frozenset(
    {"", "application/octet-stream", "application/x-download", "application/force-download", "application/binary"}
)
_SAME = (
    {"image/jpeg", "image/jpg", "image/pjpeg"},
    {"image/png", "image/x-png", "image/apng"},
    {"image/bmp", "image/x-ms-bmp", "image/x-bmp", "application/riscos"},
    {"application/pdf", "application/x-pdf", "application/acrobat", "text/pdf"},
    {"application/rtf", "text/rtf", "text/richtext", "application/x-rtf", "application/msword"},
    {"application/zip", "application/x-zip", "application/x-zip-compressed"},
    {"application/gzip", "application/x-gzip", "application/x-compressed-tar", "application/x-tgz"},
    {"application/x-rar-compressed", "application/vnd.rar", "application/x-rar"},
    {"audio/mpeg", "audio/mp3"},
)


def _fits(claimed: str, sniffed: str) -> bool:
    """Whether a claim can be true. Office formats fit each other's names by family only: the old ones share a container."""
    if claimed == sniffed or claimed in _GENERAL or claimed.startswith("message/"):
        return True
    if any(claimed in group and sniffed in group for group in _SAME):
        return True
    if sniffed == "application/zip":
        return claimed.startswith("application/vnd.") or claimed in ("application/epub+zip", "application/java-archive")
    if sniffed == OLE:
        return claimed.startswith(("application/vnd.ms-", "application/ms", "application/x-ms"))
    family, _, _ = sniffed.partition("/")
    return family in ("audio", "video") and claimed.partition("/")[0] in ("audio", "video")
