"""Which charset bytes are really in: what senders declare, what they mean by it, and what the bytes themselves tell."""

import codecs
import re
from collections.abc import Iterable, Iterator
from encodings.aliases import aliases
from functools import lru_cache
from typing import NamedTuple

_SURROGATES = re.compile("[\ud800-\udfff]")
# Codecs that take more than linear time or that turn harmless text into something else.
_REFUSED_CODECS = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})
# What senders call by the smaller set's name (WHATWG Encoding Standard, section 4.2).
_SUPERSETS = {
    "iso8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "big5": "big5hkscs",
}
# Read where the codec above them fails: half-width katakana (JIS X 0201) and NEC's row 13 in what calls itself ISO-2022-JP.
_JAPANESE_MAIL = ("iso2022_jp", "iso2022_jp_ext", "iso2022_jp_2004")
# Labels in mails that Python has not got, compared without anything but letters and digits and without a leading "x".
_LABELS = {
    "ansi": "cp1252",
    "unicode": "utf-16",
    "ucs2": "utf-16",
    "iso10646ucs2": "utf-16",
    "utf8mb4": "utf-8",
    "sjis": "cp932",
    "windows31j": "cp932",
    "windows874": "cp874",
    "windows949": "cp949",
    "dos866": "cp866",
    "koi8ru": "koi8-u",
    "gbk2312": "gb18030",
    "big5eten": "big5hkscs",
    "88591": "iso8859-1",
    "885915": "iso8859-15",
    "iso88598i": "iso8859-8",
    "iso88598e": "iso8859-8",
    "iso2022jpms": "iso2022_jp",
    "cp50220": "iso2022_jp",
    "cp50221": "iso2022_jp",
    "maccyrillic": "mac-cyrillic",
    "macroman": "mac-roman",
    "unicode11utf7": "utf-7",
}
# A well-known name with something stuck to it ("windows-1252http-equivContent-Type", "charset=utf-8", "win-1251").
_STUCK = re.compile(
    r"(?:charset)?(utf8|utf16|iso8859\d{1,2}|(?:windows|win|cp)(?=125\d)125\d|usascii|koi8[ru]|gb2312|gb18030|gbk)"
)
_PYTHON_LABELS = {re.sub(r"[^a-z0-9]", "", name): codec for alias, codec in aliases.items() for name in (codec, alias)}
# Charsets of one byte a character whose letters are Latin: valid UTF-8 would read as nonsense in them ("Ã©").
_LATIN = frozenset(
    {"ascii", "cp1250", "cp1252", "cp1254", "cp1257", "cp437", "cp850", "mac-roman"}
    | {f"iso8859-{number}" for number in (1, 2, 3, 4, 9, 10, 13, 14, 15, 16)}
)
# What UTF-8 has to say to be believed against the declared charset: letters and the usual signs, no odd symbol.
_PLAUSIBLE = re.compile(
    "[\x00-\x7f\xa0°£«»¡¿´À-ÖØ-öø-ɏ\u0300-\u0304\u0308Ά-ώЀ-ӿ\u0590-\u06ff\u0e00-\u0e7fḀ-ỿ–—‘-‟•…€™\u3000-ヿ一-鿿가-힣！-｠]*"
)
# And enough of it: a letter or two can be two bytes of UTF-8 by chance, and are somebody's honest "Ãª".
_ENOUGH = re.compile("(?:[A-Za-z0-9][^A-Za-z0-9]*+){3}|(?:[^\x00-\x7f][\x00-\x7f]*+){3}")
# Their text can be valid UTF-8 by chance, and UTF-8 valid text of theirs: it takes three ideographs to tell.
_CHINESE_JAPANESE_KOREAN = frozenset({"gb18030", "gbk", "gb2312", "big5hkscs", "big5", "cp932", "cp949", "euc_jp"})
_PLAUSIBLE_IDEOGRAPHS = re.compile(
    "(?:[\x00-\x7f–—‘-‟•…]*[\u3000-ヿ一-鿿가-힣！-｠]){3}[\x00-\x7f–—‘-‟•…\u3000-ヿ一-鿿가-힣！-｠]*+"
)
# Bytes that are no UTF-8 inside text that else is, as Python's surrogateescape leaves them, read as windows-1252.
_STRAY_BYTES = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}
_JIS_ESCAPES = (b"\x1b$B", b"\x1b$@", b"\x1b$(D")
_META_CHARSET = re.compile(rb"<meta\b[^>]{0,200}?\bcharset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w.:-]{2,40})", re.IGNORECASE)
# Where the HTML standard has a charset stand (section 4.2.5.4: within the first 1024 bytes), with room for mail's extras.
_META_WITHIN = 4096
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_MARKS = tuple(mark for mark, _ in _BOMS)
_CHARSET_PARAMETER = re.compile(rb";\s{0,99}charset\*?\s{0,9}=\s{0,9}\"?([^\s\";]{1,60})", re.IGNORECASE)


class Text(NamedTuple):
    """Decoded text; `certain` is False where a byte had to be guessed, replaced or left out."""

    value: str
    certain: bool = True


def decode_bytes(data: bytes, charset: str | None, hint: str | None = None) -> Text:
    """Decode as declared; where that is missing, unknown or a lie: UTF-8 if the bytes are that, else `hint` (a charset
    that something else in the mail names), else the declared charset with what it has got, else windows-1252.

    Without a declared charset clean UTF-8 counts as certain (RFC 6532); every other departure from what was declared
    does not, nor does a known repair: UTF-8 that calls itself something else, or that was encoded twice.
    """
    if not charset and b"\x1b" not in data and data.isascii():  # nearly every header
        return Text(data.decode("ascii"))
    return _declared(data, charset) or _recognised(data, charset, hint) or _forced(data, charset)


def known_codecs(charset: str | None) -> tuple[str, ...]:
    """Python's codecs for a charset's label, the likeliest meaning first; none for a label nobody knows."""
    return _codecs_of(charset[:60]) if charset else ()


def charset_of_html(content: bytes) -> str | None:
    """The charset that HTML names for itself in a meta element."""
    found = _META_CHARSET.search(content[:_META_WITHIN])
    return found[1].decode("ascii", "replace") if found else None


def charset_of_mark(content: bytes) -> str | None:
    """The charset told by a byte order mark at the beginning."""
    if not content.startswith(_MARKS):
        return None
    return next(codec for mark, codec in _BOMS if content.startswith(mark))


def charset_parameter(content_type: bytes) -> str | None:
    """The charset in an unfolded Content-Type value: what raw bytes in the same mail's headers are most likely in."""
    if b"charset" not in content_type.lower():  # a multipart's has none
        return None
    found = _CHARSET_PARAMETER.search(content_type[:2048])
    return found[1].decode("ascii", "replace") if found else None


def is_utf8(content: bytes) -> bool:
    """Whether bytes are valid UTF-8."""
    return _try(content, "utf-8") is not None


def scrub(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 sink accepts."""
    try:
        text.encode()  # an order faster than the search, and what nearly every text passes
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text)
    return text


def _declared(data: bytes, charset: str | None) -> Text | None:
    for codec in known_codecs(charset):
        text = _try(data, codec)
        if text is not None:
            return Text(text) if data.isascii() else _checked(data, text, codec)
    return None


def _checked(data: bytes, text: str, codec: str) -> Text:
    """The declared charset can be read; now against the lies that are common enough to be known."""
    if codec == "utf-8":
        meant, plausible = _encoded_once(text), _PLAUSIBLE
    elif codec in _LATIN or codec in _CHINESE_JAPANESE_KOREAN:
        meant, plausible = _try(data, "utf-8"), _PLAUSIBLE if codec in _LATIN else _PLAUSIBLE_IDEOGRAPHS
    else:
        return Text(text)
    convinces = meant is not None and _ENOUGH.search(meant) and plausible.fullmatch(meant)
    return Text(meant, certain=False) if meant is not None and convinces else Text(text)


def _encoded_once(text: str) -> str | None:
    """What UTF-8 was before somebody took it for windows-1252 and encoded it again; None if nobody did. The first letters
    that are no ASCII nearly always tell: windows-1252 is slow to encode, and no character reaches over an ASCII one."""
    try:
        text.encode("ascii")
    except UnicodeEncodeError as odd:
        first = text[odd.start : odd.end]
    else:
        return None
    return None if _recoded(first) is None else _recoded(text)


def _recoded(text: str) -> str | None:
    try:
        return _try(text.encode("cp1252"), "utf-8")
    except UnicodeEncodeError:
        return None


def _recognised(data: bytes, charset: str | None, hint: str | None) -> Text | None:
    if not charset and any(escape in data for escape in _JIS_ESCAPES):
        text = _first(data, _JAPANESE_MAIL)
        if text is not None:
            return Text(text, certain=False)
    text = _try(data, "utf-8")
    if text is not None:
        checked = _checked(data, text, "utf-8")
        return Text(checked.value, certain=checked.certain and not charset)
    text = _first(data, known_codecs(hint))
    return None if text is None else Text(text, certain=False)


def _forced(data: bytes, charset: str | None) -> Text:
    """What no charset reads whole: the declared one with gaps, or UTF-8 with its stray bytes read as windows-1252."""
    for codec in known_codecs(charset):
        if codec not in ("utf-8", "ascii"):
            return Text(scrub(data.decode(codec, "replace")), certain=False)
    return Text(data.decode("utf-8", "surrogateescape").translate(_STRAY_BYTES), certain=False)


def _first(data: bytes, codecs_to_try: Iterable[str]) -> str | None:
    return next((text for codec in codecs_to_try if (text := _try(data, codec)) is not None), None)


def _try(data: bytes, codec: str) -> str | None:
    if codec == "iso2022_jp_2004":  # the one codec with NEC's row 13, under its own escape sequence
        data = data.replace(b"\x1b$B", b"\x1b$(Q")
    try:
        text = data.decode(codec)
    except (LookupError, ValueError):
        return None
    return None if codec == "utf-7" and _SURROGATES.search(text) else text  # no other codec makes lone surrogates


@lru_cache(maxsize=256)
def _codecs_of(charset: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_meanings(charset)))


def _meanings(charset: str) -> Iterator[str]:
    codec = _lookup(charset.partition("*")[0].strip(" \t'\"").lower())
    if codec is None:
        return
    if codec in _SUPERSETS:
        yield _SUPERSETS[codec]
    if codec == "iso2022_jp":
        yield from _JAPANESE_MAIL
    yield codec


def _lookup(label: str) -> str | None:
    """Python's name of the codec meant by a label, None if there is none that makes text."""
    plain = re.sub(r"[^a-z0-9]", "", label)
    stuck = _STUCK.match(plain)
    names = (label, _named(plain.removeprefix("x")), _named(stuck[1]) if stuck else None)
    return next((codec for name in names if name and (codec := _text_codec(name))), None)


def _named(plain: str) -> str | None:
    return _LABELS.get(plain) or _PYTHON_LABELS.get(plain.replace("win125", "cp125"))


def _text_codec(name: str) -> str | None:
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    return None if codec in _REFUSED_CODECS or not _makes_text(codec) else codec


def _makes_text(codec: str) -> bool:
    """Whether a codec reads bytes as text at all: zlib, rot13 and the like refuse."""
    try:
        b"aaaa".decode(codec)
    except UnicodeError:
        return True
    except LookupError:
        return False
    return True
