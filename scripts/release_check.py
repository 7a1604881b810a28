#!/usr/bin/env python3
"""Says what keeps a tag from being released: `release_check.py 0.2.0`. Needs catkin_pkg, which bloom reads with."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from catkin_pkg.changelog import get_changelog_from_path
from catkin_pkg.package import InvalidPackage, parse_package
from changelog_rst import changelog_rst

ROOT = Path(__file__).resolve().parents[1]


def problems(tag: str) -> Iterator[str]:
    """What is wrong with a release of this tag, one sentence each."""
    source = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "fvs_ros" / "__init__.py").read_text(), re.MULTILINE)
    version = source[1] if source else "nothing"
    if tag != version:
        yield f"the tag is {tag}, fvs_ros/__init__.py says {version}"
    warnings: list[str] = []
    try:
        package = parse_package(ROOT / "package.xml", warnings=warnings)
    except InvalidPackage as error:
        yield f"package.xml: {error}"
        return
    yield from (f"package.xml: {warning}" for warning in warnings)
    if package.version != version:
        yield f"package.xml says {package.version}, fvs_ros/__init__.py {version}"
    for maintainer in package.maintainers:
        if maintainer.email.endswith("@example.org"):
            yield f"package.xml: {maintainer.email} is a placeholder; name somebody who answers"
    if (ROOT / "CHANGELOG.rst").read_text() != changelog_rst((ROOT / "CHANGELOG.md").read_text()):
        yield "CHANGELOG.rst is not that of CHANGELOG.md: run scripts/changelog_rst.py"
    # catkin_pkg leaves out what is forthcoming, and gives the oldest first.
    numbers = [number for number, _, _ in get_changelog_from_path(str(ROOT)).foreach_version()]
    newest = numbers[-1] if numbers else "forthcoming"
    if newest != version:
        yield f"the newest version of CHANGELOG.md is {newest}; write its heading as: ## {version} (2026-01-31)"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("release_check.py: name the tag, as in: release_check.py 0.2.0")
    found = list(problems(sys.argv[1]))
    print("\n".join(found) if found else f"{sys.argv[1]} can be released")
    sys.exit(1 if found else 0)
