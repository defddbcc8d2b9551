"""Find what would stop or degrade training, before it starts: by the files' headers, then by their pixels."""

from unit.data.check.findings import CHECKS, Finding, FolderSummary, Report, describe_findings
from unit.data.check.folders import check_folders, check_headers

__all__ = ["CHECKS", "Finding", "FolderSummary", "Report", "check_folders", "check_headers", "describe_findings"]
