"""The folder handler with an ATS that misbehaves to order, so that `apptrack-ingest demo` shows retries and rejections."""

from pydantic import Field

from apptrack_handlers.folder import Folder
from apptrack_ingest import Application, Rejected, RetryLater, Verdict


class Demo(Folder):
    """Files applications as Folder does, except for those it was told to trip over."""

    class Settings(Folder.Settings):
        """`fail_first`: applicant ids whose first attempt fails, to be repeated after `retry_after` seconds;
        `reject`: a reason for each applicant id that is turned down for good."""

        fail_first: list[int] = Field(default=[])
        retry_after: float = 2.0
        reject: dict[int, str] = Field(default={})

    settings: Settings

    def handle(self, application: Application) -> Verdict:
        """Trip or file."""
        if application.applicant_id in self.settings.reject:
            return Rejected(self.settings.reject[application.applicant_id])
        if application.applicant_id in self.settings.fail_first and application.attempt == 1:
            raise RetryLater("the demo's ATS is being restarted", after=self.settings.retry_after)
        return super().handle(application)
