"""The ATS of the benchmarks that does nothing, or nothing but to wait: what is measured is everything around it."""

import asyncio

from apptrack_ingest import Accepted, Application, Verdict


class Noop:
    """Takes every application."""

    async def handle(self, application: Application) -> Verdict:
        return Accepted(f"ATS-{application.applicant_id}")


class Waits:
    """Takes every application after 200 ms."""

    async def handle(self, application: Application) -> Verdict:
        await asyncio.sleep(0.2)
        return Accepted(f"ATS-{application.applicant_id}")
