#!/usr/bin/env python3
"""Writes CHANGELOG.rst, which ROS's build farm reads: of each version in CHANGELOG.md its first paragraph."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TITLE = "Changelog for package fvs_ros"
WIDTH = 100
_VERSION = re.compile(r"^## (?P<version>\d+\.\d+\.\d+) \((?P<date>unreleased|\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)


def changelog_rst(markdown: str) -> str:
    """CHANGELOG.md in the form of catkin's changelogs (REP-132).

    Raises:
        ValueError: without a version, or where one has no paragraph below its heading.
    """
    versions = list(_VERSION.finditer(markdown))
    if not versions:
        raise ValueError("CHANGELOG.md has no heading of the form: ## 1.2.3 (2026-01-31), or (unreleased)")
    bar = "^" * len(TITLE)
    parts = [f"{bar}\n{TITLE}\n{bar}\n"]
    for match in versions:
        summary = markdown[match.end() :].lstrip("\n").split("\n\n", 1)[0].strip()
        if not summary or summary.startswith("#"):
            raise ValueError(f"CHANGELOG.md has no paragraph of summary below the heading of {match['version']}")
        heading = "Forthcoming" if match["date"] == "unreleased" else f"{match['version']} ({match['date']})"
        # Markdown marks code with one backtick, reStructuredText with two.
        text = re.sub(r"`([^`]+)`", r"``\1``", " ".join(summary.split()))
        bullets = [text, "CHANGELOG.md has every change."]
        lines = [textwrap.fill(one, WIDTH, initial_indent="* ", subsequent_indent="  ") for one in bullets]
        parts.append("\n".join([heading, "-" * len(heading), *lines]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    text = changelog_rst((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    (ROOT / "CHANGELOG.rst").write_text(text, encoding="utf-8")
