"""A report's XML is what idibu documents, whatever text is in it."""

from datetime import UTC
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from apptrack_ingest.model import Report, ReportStatus
from apptrack_ingest.report.xml import NO_REASON, TEXT_LIMIT, to_xml

WHEN = 1_464_955_919.9  # 2016-06-03 12:11:59 UTC, as in idibu's example
ANY_TEXT = st.none() | st.text(st.characters(exclude_categories=[]), max_size=50)


def test_as_documented() -> None:
    assert to_xml(Report(1, ReportStatus.SUCCESS, WHEN)) == (
        "<applicant><status>success</status><date-processed>2016-06-03 12:11:59</date-processed></applicant>"
    )
    assert to_xml(Report(1, ReportStatus.FAIL, WHEN, "R<1>", "eaten & gone é 😀")) == (
        "<applicant><status>fail</status><remote-id>R&lt;1&gt;</remote-id><error-message>eaten &amp; gone é 😀"
        "</error-message><date-processed>2016-06-03 12:11:59</date-processed></applicant>"
    )


def test_time_zone() -> None:
    report = Report(1, ReportStatus.SUCCESS, WHEN)
    assert to_xml(report, UTC) == to_xml(report)
    assert "2016-06-03 13:11:59" in to_xml(report, ZoneInfo("Europe/London"))


def test_a_fail_has_a_reason_and_a_success_needs_none() -> None:
    for empty in (None, "", " \x00\ud800 "):
        assert f"<error-message>{NO_REASON}<" in to_xml(Report(1, ReportStatus.FAIL, WHEN, error_message=empty))
        assert "error-message" not in to_xml(Report(1, ReportStatus.SUCCESS, WHEN, error_message=empty))


@given(ANY_TEXT, ANY_TEXT, st.sampled_from(ReportStatus), st.floats(0, 4e9))
def test_any_text_is_well_formed_xml_that_reads_back(
    remote_id: str | None, error: str | None, status: ReportStatus, when: float
) -> None:
    document = to_xml(Report(1, status, when, remote_id, error)).encode("utf-8")
    root = etree.fromstring(document)
    fields = {element.tag: element.text for element in root}
    assert list(fields) == [tag for tag in ("status", "remote-id", "error-message", "date-processed") if tag in fields]
    assert fields["status"] == status
    for given_text, tag in ((remote_id, "remote-id"), (error, "error-message")):
        kept = "".join(c for c in given_text or "" if c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff"))
        kept = kept.replace("\ufffe", "").replace("\uffff", "").strip()
        expected = kept or (NO_REASON if tag == "error-message" and status is ReportStatus.FAIL else None)
        assert fields.get(tag) == expected


@given(ANY_TEXT, st.sampled_from(ReportStatus))
def test_it_is_written_as_lxml_would(text: str | None, status: ReportStatus) -> None:
    document = to_xml(Report(1, status, WHEN, text, text))
    assert etree.tostring(etree.fromstring(document.encode("utf-8")), encoding="unicode") == document


@given(st.integers(TEXT_LIMIT - 2, TEXT_LIMIT + 2), st.sampled_from("xé😀&"))
def test_long_text_is_cut_between_characters(length: int, character: str) -> None:
    root = etree.fromstring(to_xml(Report(1, ReportStatus.FAIL, WHEN, error_message=character * length)))
    text = root.findtext("error-message") or ""
    assert len(text) == min(length, TEXT_LIMIT)
    assert text.endswith("…") is (length > TEXT_LIMIT)
    assert set(text) <= {character, "…"}
