"""The comparison with a reference: what it counts, and that a mail which cannot be read is counted and not fatal."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "corpus.py"
MAIL = (
    b"From: Jane <Jane@Example.org>\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\n two\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nhello\r\n'
    b'--b\r\nContent-Type: application/pdf; name="cv.pdf"\r\n\r\n%PDF\r\n1\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n'
    b'Content-Type: application/pdf; name="inner.pdf"\r\n\r\n%PDF\r\n--b\r\nContent-Type: text/x-a\r\n\r\nnote\r\n--b--\r\n'
)
READING = {
    "subject": "Café two",
    "from": "jane@example.org",
    "attachments": [
        {"name": "", "type": "message/rfc822", "sha256": "MSG"},
        {"name": "cv.pdf", "type": "application/pdf", "sha256": hashlib.sha256(b"%PDF\n1").hexdigest()},
    ],
}
BOMB = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + b"--b\r\n\r\n" * 3_000


def run(tmp_path: Path, **mails: bytes) -> tuple[list[str], dict[str, dict[str, object]]]:
    corpus = tmp_path / "mails" / "some"
    corpus.mkdir(parents=True)
    for name, raw in mails.items():
        (corpus / name).write_bytes(raw)
    expected = [READING | {"path": f"some/{name}"} for name in ("good", "other", "bomb", "missing")]
    (tmp_path / "expected.jsonl").write_text("".join(json.dumps(one) + "\n" for one in expected), encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(tmp_path / "mails"), str(tmp_path / "expected.jsonl")]
    done = subprocess.run(
        [*command, "--dump", str(tmp_path / "dump")], capture_output=True, text=True, check=True, timeout=120
    )
    dump = [json.loads(line) for line in (tmp_path / "dump").read_text(encoding="utf-8").splitlines()]
    return done.stdout.splitlines(), {one.pop("path"): one for one in dump}


def test_counts_and_dump(tmp_path):
    other = MAIL.replace(b"cv.pdf", b"vc.pdf").replace(b"Jane@", b"June@")
    lines, dump = run(tmp_path, good=MAIL, other=other, bomb=BOMB, unexpected=MAIL)
    assert dump["some/good"] == dump["some/unexpected"] == READING
    assert dump["some/bomb"] == {"error": "unreadable: too-many-parts"}
    assert "subject: 2 of 4 match, 2 differ" in lines and "from: 1 of 4 match, 3 differ" in lines
    assert "names: 1 of 4 match, 3 differ" in lines and "contents: 2 of 4 match, 2 differ" in lines
    assert lines[-2].startswith("crashed or ran over time: 2 ")
    assert lines[-1] == "matches: 25.0 % (1 of 4)"
