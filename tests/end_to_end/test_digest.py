"""What waits for a person is told where nobody watches metrics."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from apptrack_ingest.testing import an_email


def test_a_held_application_is_told_by_webhook(deployment, wait):
    told = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    deployment.extra = f'[digest]\nwebhook_url = "http://127.0.0.1:{receiver.server_port}/token-in-path"\n'
    deployment.configure()
    intake = deployment.start("--only", "intake")
    deployment.up(intake)
    deployment.send(an_email(None, name="Very Private Person"))
    deployment.stop(intake)
    # Held by one worker, told by the next at its first round.
    first = deployment.start("--only", "worker")
    wait(lambda: deployment.states() == {"held": 1})
    deployment.stop(first)
    deployment.start("--only", "worker")
    wait(lambda: told, why=deployment.log.read_text)
    assert "no-applicant-id" in told[0]["text"] and "Very Private" not in json.dumps(told)
    assert "token-in-path" not in deployment.log.read_text()
    wait(lambda: "digest delivered" in deployment.log.read_text())
    receiver.shutdown()
