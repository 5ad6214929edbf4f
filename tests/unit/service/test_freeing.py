"""Memory that a rush of large mails took goes back to the system."""

import subprocess
import sys

RUSH = """
from pathlib import Path
from apptrack_ingest.service.freeing import give_back_memory, keep_what_was_made

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

give_back_memory()
keep_what_was_made()
before = resident()
for _ in range(3):
    mails = [[bytes(b"x" * 200_000) for _ in range(50)] for _ in range(8)]
    whole = [b"".join(mail) for mail in mails]
    kept = [bytearray(50) for _ in range(10_000)]
    assert resident() - before > 100_000
    del mails, whole
print(resident() - before)
"""


def test_what_large_mails_took_is_given_back():
    found = subprocess.run([sys.executable, "-c", RUSH], capture_output=True, text=True, check=True, timeout=120)
    assert int(found.stdout) < 10_000
