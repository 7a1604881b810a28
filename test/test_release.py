"""What is published: the wheel, the metadata that bloom reads, and the workflows and images that build them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from needs import CATKIN, needed
from test_package import ROOT, canonical, dependency_lists

import fvs_ros

CHANGELOG = "## 0.2.0 (2027-01-31)\n\nWhat `it` brings.\n\n### Added\n- x\n\n## 0.1.0 (2026-12-01)\n\nThe first.\n"


def script(name: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A copy of what a release is judged by, ready to be released as 0.2.0."""
    needed("catkin_pkg", CATKIN)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "fvs_ros").mkdir()
    for name in ("changelog_rst.py", "release_check.py"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    manifest = (ROOT / "package.xml").read_text()
    manifest = manifest.replace(f"<version>{fvs_ros.__version__}<", "<version>0.2.0<")
    (tmp_path / "package.xml").write_text(manifest.replace("@example.org", "@robots.org"))
    (tmp_path / "LICENSE").touch()
    (tmp_path / "fvs_ros" / "__init__.py").write_text('__version__ = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    assert script("changelog_rst.py", tmp_path).returncode == 0
    return tmp_path


def test_the_changelog_of_the_build_farm_is_made_from_the_one_for_people(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "changelog_rst.py", tmp_path / "scripts")
    shutil.copy(ROOT / "CHANGELOG.md", tmp_path)
    assert script("changelog_rst.py", tmp_path).returncode == 0
    assert (tmp_path / "CHANGELOG.rst").read_text() == (ROOT / "CHANGELOG.rst").read_text(), (
        "run scripts/changelog_rst.py"
    )


def test_catkin_reads_the_versions_of_the_changelog(release: Path) -> None:
    changelog = needed("catkin_pkg.changelog", CATKIN).get_changelog_from_path(str(release))
    versions = [(number, f"{date:%Y-%m-%d}", len(content)) for number, date, content in changelog.foreach_version()]
    assert versions == [("0.1.0", "2026-12-01", 1), ("0.2.0", "2027-01-31", 1)]
    assert "``it``" in (release / "CHANGELOG.rst").read_text()


def test_a_release_that_is_complete_passes(release: Path) -> None:
    result = script("release_check.py", release, "0.2.0")
    assert (result.returncode, result.stdout) == (0, "0.2.0 can be released\n"), result.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("fvs_ros/__init__.py", "0.2.0", "0.2.1", "the tag is 0.2.0, fvs_ros/__init__.py says 0.2.1"),
        ("package.xml", "<version>0.2.0", "<version>0.1.9", "package.xml says 0.1.9"),
        ("package.xml", "@robots.org", "@example.org", "is a placeholder"),
        ("package.xml", "<license file", "<licence file", "package.xml: "),
        ("CHANGELOG.md", "brings", "took", "run scripts/changelog_rst.py"),
        (
            "CHANGELOG.rst",
            "0.2.0 (2027-01-31)\n------------------",
            "Forthcoming\n-----------",
            "CHANGELOG.md is 0.1.0",
        ),
    ],
)
def test_a_release_that_is_not_complete_is_refused(release: Path, file: str, old: str, new: str, said: str) -> None:
    text = (release / file).read_text()
    assert old in text
    (release / file).write_text(text.replace(old, new, 1))
    result = script("release_check.py", release, "0.2.0")
    assert result.returncode == 1
    assert said in result.stdout, result.stderr


def test_this_version_waits_for_a_maintainer_and_a_date() -> None:
    needed("catkin_pkg", CATKIN)
    result = script("release_check.py", ROOT, fvs_ros.__version__)
    lines = result.stdout.splitlines()
    assert "placeholder" in lines[0]
    assert "forthcoming" in lines[1]
    assert len(lines) == 2


def test_rosdep_knows_every_key_of_the_manifest() -> None:
    known = yaml.safe_load((ROOT / "test" / "data" / "rosdep_keys.yaml").read_text())
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    used = {element.text for element in manifest if element.tag.endswith("depend")}
    assert used == {*known["packages"], *known["system"]}


def test_what_comes_by_pip_has_a_reason() -> None:
    known = yaml.safe_load((ROOT / "test" / "data" / "rosdep_keys.yaml").read_text())
    lists = dependency_lists()
    needed = re.findall(r'"([A-Za-z][\w.-]*)[<>=~!]', lists[: lists.index("extras_require")])
    by_rosdep = {"numpy", "opencv-python-headless", "pyyaml"}
    assert {canonical(name) for name in needed} - by_rosdep == set(known["pip"])


@pytest.mark.slow
def test_the_wheel_answers_away_from_the_checkout(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(ROOT / "scripts" / "ci_wheel.sh"), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"fvs_ros {fvs_ros.__version__}\n" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        f"fvs_ros-{fvs_ros.__version__}-py3-none-any.whl",
        f"fvs_ros-{fvs_ros.__version__}.tar.gz",
    }


def test_each_step_of_the_workflows_is_a_script_that_exists() -> None:
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for name in re.findall(r"(?:scripts/\S+\.(?:sh|py)|\.ci/run)", path.read_text()):
            assert os.access(ROOT / name, os.X_OK), f"{path.name} runs {name}, which is no executable file"


def test_images_run_what_they_are_asked_for_in_the_environment() -> None:
    if not (ROOT / "install" / ".fvs-interfaces").exists():
        pytest.skip("there is nothing to enter: run `make setup` first")
    entry = ROOT / "scripts" / "docker_entrypoint.sh"
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    command = [str(entry), "python", "-c", "import sys; print(sys.prefix)"]
    result = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout.strip()) == (0, str(ROOT / ".venv")), result.stderr
