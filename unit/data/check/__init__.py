"""Find what would stop or spoil a training, before hours are spent: by the files' headers, then by their pixels."""

from unit.data.check.findings import CHECKS, Finding, FolderFacts, Report, describe_findings
from unit.data.check.folders import check_folders, check_headers

__all__ = ["CHECKS", "Finding", "FolderFacts", "Report", "check_folders", "check_headers", "describe_findings"]
