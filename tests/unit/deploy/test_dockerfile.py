"""The Dockerfile: what it copies exists and reaches it, the image is confined, and its build steps run as they stand."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from apptrack_ingest.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


@dataclass(frozen=True)
class Step:
    """One instruction; `stage` counts from 0, `words` are what follows, its lines joined."""

    stage: int
    instruction: str
    words: str


def steps() -> list[Step]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[Step] = []
    stage = -1
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        instruction, _, words = line.partition(" ")
        stage += instruction == "FROM"
        if instruction:
            found.append(Step(stage, instruction, words.strip()))
    return found


def of(instruction: str, stage: int | None = None) -> list[str]:
    return [s.words for s in steps() if s.instruction == instruction and stage in (None, s.stage)]


def copies() -> Iterator[tuple[list[str], str]]:
    """What is copied from the tree, and where to."""
    for words in of("COPY"):
        if not words.startswith("--from="):
            *sources, target = words.split()
            yield sources, target


def environment(stage: int) -> dict[str, str]:
    pairs = (pair.partition("=") for words in of("ENV", stage) for pair in shlex.split(words))
    return {name: value for name, _, value in pairs}


def test_it_has_two_stages_of_the_same_pinned_python() -> None:
    build, final = of("FROM")
    assert build == f"{final} AS build"
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", final)


def test_what_it_copies_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored, "everything is kept out but what is named"
    sources = {source for found, _ in copies() for source in found}
    assert sources == {line[1:] for line in ignored if line.startswith("!")}
    for source in sources:
        assert (ROOT / source).exists(), source


def test_only_hashed_libraries_are_installed() -> None:
    for words in of("RUN", 0):
        if "pip" in words and (" install " in words or " wheel " in words):
            ours = words.endswith("--wheel-dir /src/dist /src")
            assert "--require-hashes" in words or "--no-deps --no-index" in words or ours
    for lock in ("build.txt", "runtime.txt"):
        requirements = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
        assert len(re.findall(r"^\S+==", requirements, re.MULTILINE)) <= requirements.count("--hash=sha256:")


def test_it_runs_as_a_numeric_user_that_is_not_root() -> None:
    user, group = of("USER", 1)[-1].split(":")
    assert user.isdigit() and group.isdigit()
    assert int(user) > 0
    assert f"install -d -o {user} -g {group} -m 0700 /data" in of("RUN", 1)[0]
    words = [step.instruction for step in steps() if step.stage == 1]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))


def test_only_data_is_written() -> None:
    assert of("WORKDIR", 1) == ["/data"]
    assert of("VOLUME", 1) == ["/data"]
    assert not Settings().data_dir.is_absolute(), "so that it is below the working directory"
    assert environment(1)["PYTHONDONTWRITEBYTECODE"] == "1"


def test_no_setting_is_baked_in_that_a_configuration_file_could_not_change() -> None:
    assert not [name for name in environment(1) if name.startswith("APPTRACK_")]


def test_it_serves_on_the_ports_of_the_settings() -> None:
    settings = Settings()
    assert of("ENTRYPOINT", 1) == ['["apptrack-ingest"]']
    assert of("CMD", 1) == ['["serve"]']
    assert of("EXPOSE", 1) == [f"{settings.smtp.port} {settings.web.port}"]
    assert f"http://127.0.0.1:{settings.web.port}/readyz" in of("HEALTHCHECK", 1)[0]


def health_check() -> str:
    found = re.search(r'CMD \["python", "-c", "(.+)"\]', of("HEALTHCHECK", 1)[0])
    assert found
    return found[1]


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_tells_ready_from_not(status: int | None, exit_code: int) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status or 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    port = server.server_address[1]
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        if status is None:
            server.shutdown()
            server.server_close()
        command = health_check().replace(":9425/", f":{port}/")
        done = subprocess.run([sys.executable, "-c", command], capture_output=True, timeout=30)
        assert done.returncode == exit_code
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.mark.slow
def test_its_build_steps_run_in_a_clean_directory(tmp_path: Path) -> None:
    """Every RUN and COPY of the first stage, with the image's root at `tmp_path`."""

    def here(words: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|src)/?", rf"{tmp_path}/\1/", words)

    # Of our environment only what pip needs to reach its index, and its cache.
    kept = [name for name in os.environ if name.startswith("PIP_") or "proxy" in name.lower() or name == "HOME"]
    clean = {name: os.environ[name] for name in kept} | environment(0) | {"PIP_NO_CACHE_DIR": "0"}
    clean["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for step in (s for s in steps() if s.stage == 0):
        if step.instruction == "COPY":
            _copy(step.words.split(), here)
        elif step.instruction == "RUN":
            done = subprocess.run(
                ["sh", "-c", here(step.words)], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=600
            )
            assert done.returncode == 0, f"{step.words}\n{done.stdout}{done.stderr}"
    program = tmp_path / "opt" / "apptrack-ingest" / "bin" / "apptrack-ingest"
    configured = subprocess.run([program, "check-config"], cwd=tmp_path, env=clean, capture_output=True, timeout=60)
    assert configured.returncode == 0, configured.stderr


def _copy(words: list[str], here: Callable[[str], str]) -> None:
    *sources, target = words
    place = Path(here(target))
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place)
