"""Line ends that a relay doubled: nullmailer and dma make CR CR LF of every CRLF, and no parser finds the headers' end."""

_DOUBLED = b"\r\r\n"


def restored(raw: bytes, headers_end: int) -> tuple[bytes, tuple[str, ...]]:
    """The mail with CRLF again where all of its line ends are CR CR LF, and a warning in words.

    `headers_end` is the length of the header block, the empty line that ends it tells. The block itself stays as it is, so
    that offsets into it stay right; a reader of fields takes no CR at a line's end for a part of the value.
    """
    if not raw.startswith(_DOUBLED, headers_end):
        return raw, ()
    body = raw[headers_end:].replace(_DOUBLED, b"\r\n")
    return raw[:headers_end] + body, ("every line end was doubled on the way (CR CR LF); they were put right",)
