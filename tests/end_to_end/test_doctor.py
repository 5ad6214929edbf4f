"""`doctor` beside the running service: addresses are held by our own, the spool opens, DNS, TLS and idibu are asked."""

import json

from end_to_end.name_server import name_server

from apptrack_ingest.idibu.sandbox_script import Fault, Step

ZONE = {"acme.example": {"MX": ["10 mx.test.example."]}, "mx.test.example": {"A": ["192.0.2.7"]}}


def looked(deployment, *words, code):
    result = deployment.cli("doctor", "--json", *words, check=False)
    assert result.exit_code == code, result.output
    return {one["check"]: one for one in json.loads(result.stdout)}


def test_beside_the_running_service(deployment_on_each, certificates, sandbox, wait, secret_hash, monkeypatch):
    deployment = deployment_on_each
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.file))
    deployment.smtp = 'host = "127.0.0.1"\n' + certificates.issue("mx.test.example").settings
    with name_server(ZONE) as server:
        deployment.extra = f'[dns]\nnameservers = ["{server.address}"]\n'
        service = deployment.start()
        deployment.up(service)
        found = looked(deployment, code=0)
        assert not {name for name, one in found.items() if one["level"] == "fail"}
        levels = {name: one["level"] for name, one in found.items()}
        wanted = {"spool", "TLS certificate", "MX of acme.example", "hash of acme", "clock of idibu", "handler of acme"}
        assert {name: levels[name] for name in wanted} == dict.fromkeys(wanted, "ok")
        assert "apptrack-ingest runs" in found[f"address 127.0.0.1:{deployment.port}"]["found"]
        assert "apptrack-ingest runs" in found[f"address 127.0.0.1:{deployment.web_port}"]["found"]
        assert secret_hash not in json.dumps(found)
        sandbox.misbehave(Step(fault=Fault.UNAUTHORIZED, times=None))
        assert looked(deployment, code=1)["hash of acme"]["level"] == "fail"
        assert "hash of acme" not in looked(deployment, "--offline", code=0)
        assert deployment.greeted(), "nobody was disturbed"
    assert deployment.stop(service) == 0
