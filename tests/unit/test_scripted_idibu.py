"""The scripted idibu that ships for others' tests speaks real HTTP and remembers."""

import httpx

from apptrack_ingest.testing import Fault, ScriptedIdibu, Step

SUCCESS = {"data": "<applicant><status>success</status><remote-id>R-1</remote-id></applicant>"}


def test_it_misbehaves_to_order_and_remembers() -> None:
    with ScriptedIdibu({"a-hash": "acme"}) as idibu:
        idibu.misbehave(Step(fault=Fault.ERROR, times=2))
        url = f"{idibu.base_url}/ws/rest/v1/applicant-status/7?hash=a-hash"
        codes = [httpx.post(url, data=SUCCESS).status_code for _ in range(3)]
        assert codes == [500, 500, 200]
        [applicant] = idibu.applicants("acme")
        assert (applicant.id, applicant.status, applicant.remote_id) == (7, "success", "R-1")
        assert len(idibu.requests(7)) == 3
