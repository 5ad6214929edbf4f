"""The applications that are sent: a text, an HTML part and a PDF, as idibu AppTrack forwards them, of a given size."""

import base64
import random
from itertools import count

ID = b"40000000"
"""Stands for the applicant id, all of the same length, so that a mail is made by one replacement."""

HEAD = b"""X-iTrackID: %s
X-iTrackID-ClientReference: ATS-4711
X-iTrackID-JobTitle: Sous Chef
X-iTrackID-PortalName: Jobboard
From: Jane Doe <jane.doe@example.org>
To: jobs@bench.example
Subject: =?utf-8?q?Application_f=C3=BCr?= Sous Chef
Date: Mon, 02 Mar 2026 09:30:00 +0000
Message-ID: <%s@idibu.example>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="outer"

--outer
Content-Type: multipart/alternative; boundary="inner"

--inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Dear Sir or Madam,

please find my CV attached. I have worked as a chef for f=C3=BCnf years,
and you reach me on +44 20 7946 0123 or at jane.doe@example.org.

Jane Doe
--inner
Content-Type: text/html; charset=utf-8

<html><body><p>Dear Sir or Madam,</p><p>please find my CV attached.</p><p>Jane Doe</p></body></html>
--inner--
--outer
Content-Type: application/pdf; name="Jane Doe CV.pdf"
Content-Disposition: attachment; filename="Jane Doe CV.pdf"
Content-Transfer-Encoding: base64

"""

_numbers = count(40_000_001)


def template(size: int) -> bytes:
    """A mail of about `size` bytes with LF line ends, whose id is `ID`; the same for the same size."""
    head, tail = HEAD % (ID, ID), b"--outer--\n"
    left = max(60, size - len(head) - len(tail))
    document = b"%PDF-1.4\n" + random.Random(size).randbytes(left * 57 // 78)  # noqa: S311 - content, no secret
    return head + base64.encodebytes(document) + tail


def on_the_wire(mail: bytes) -> bytes:
    """As it goes into DATA: CRLF, and the dot at its end (no line of ours begins with a dot)."""
    return mail.replace(b"\n", b"\r\n") + b".\r\n"


def numbers(many: int) -> list[bytes]:
    """So many applicant ids, none given twice in a process."""
    return [b"%d" % next(_numbers) for _ in range(many)]
