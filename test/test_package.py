"""The package as a whole: one version, complete manifests, an environment that can be entered."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import require_ros

import fvs_ros

ROOT = Path(__file__).resolve().parents[1]
ROS_PACKAGES = {
    "action_msgs",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "nav_msgs",
    "rcl_interfaces",
    "rclpy",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "tf2_msgs",
    "tf2_ros",
    "unique_identifier_msgs",
    "visualization_msgs",
}
# Python's name of a package where it differs from rosdep's.
ROSDEP_KEYS = {"tf2_ros": "tf2_ros_py"}
INTERFACES = sorted(
    str(path.relative_to(ROOT)) for kind in ("msg", "srv", "action") for path in (ROOT / kind).glob(f"*.{kind}")
)
MODULES = sorted((ROOT / "fvs_ros").rglob("*.py"))


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, str]:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[canonical(name)] = version
    return pins


def imported_modules(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_version_is_the_same_everywhere(manifest: ElementTree.Element) -> None:
    assert manifest.findtext("version") == fvs_ros.__version__
    try:
        installed = metadata.version("fvs_ros")
    except metadata.PackageNotFoundError:
        pytest.skip("fvs_ros was not installed by pip here: run it in the environment that `make setup` makes")
    assert installed == fvs_ros.__version__


def test_the_checkout_is_what_is_tested() -> None:
    assert Path(fvs_ros.__file__).resolve() == ROOT / "fvs_ros" / "__init__.py"


def test_the_licence_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_interface_is_built() -> None:
    listed = re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (ROOT / "CMakeLists.txt").read_text())
    assert sorted(listed) == INTERFACES


def test_no_module_hides_a_generated_one() -> None:
    assert not [name for name in ("msg", "srv", "action") if (ROOT / "fvs_ros" / name).exists()]


def test_the_manifest_names_every_ros_package_that_is_imported_or_used_in_an_interface(
    manifest: ElementTree.Element,
) -> None:
    declared = {element.text for tag in ("depend", "exec_depend") for element in manifest.findall(tag)}
    modules = {module.split(".")[0] for path in MODULES for module in imported_modules(path)}
    for path in (ROOT / "launch").glob("*.py"):
        modules |= {module.split(".")[0] for module in imported_modules(path)}
    fields = "\n".join((ROOT / name).read_text() for name in INTERFACES)
    modules |= set(re.findall(r"^(\w+)/\w+", fields, re.MULTILINE))
    # Comes with rclpy, which cannot work without it.
    modules -= {"rcl_interfaces"}
    used = {ROSDEP_KEYS.get(module, module) for module in modules & ROS_PACKAGES}
    assert "rclpy" in used
    assert used - declared == set()


def test_everything_that_pip_installs_is_pinned() -> None:
    pins = constraints()
    assert all(re.fullmatch(r"\d[\w.]*", version) for version in pins.values())
    sources = [*re.findall(r'"([A-Za-z][\w.-]*)(?:[<>=~!][^"]*)?"', dependency_lists())]
    for line in (ROOT / "scripts" / "ros_wheels.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            sources.append(re.split(r"[^\w.-]", line, maxsplit=1)[0])
    # The one extra that `make setup` leaves out: it needs nvcc.
    extras = {"flash", "train", "eval", "json", "pictures", "quantization", "rerun", "web", "dev", "lint"}
    needed = {canonical(name) for name in sources} - {"flash-attn", *extras}
    assert {"torch", "transformers", "rosbags", "pytest", "ros-jazzy-rclpy"} <= needed
    assert needed - set(pins) == set()


def dependency_lists() -> str:
    """The part of setup.py that lists requirements, without its comments."""
    text = (ROOT / "setup.py").read_text()
    part = text[text.index("install_requires=") : text.index("entry_points=")]
    return re.sub(r"#.*", "", part)


EXECUTABLES = dict(re.findall(r'"(\w+)=\$\{PROJECT_NAME\}([.\w]+)"', (ROOT / "CMakeLists.txt").read_text()))


def test_the_nodes_and_the_command_are_executables() -> None:
    nodes = {name: f".nodes.{name}" for name in ("replay_node", "stream_node")}
    assert {"fvs": ".cli", "web": ".commands.web", **nodes} == EXECUTABLES


@pytest.mark.parametrize("name", EXECUTABLES)
def test_an_executable_runs_its_module_by_the_packages_own_python(name: str, tmp_path: Path) -> None:
    template = ROOT / "scripts" / "run_module.in"
    assert os.access(template, os.X_OK)
    values = {"Python3_EXECUTABLE": sys.executable, "name": name, "module": f"fvs_ros{EXECUTABLES[name]}"}
    script = tmp_path / "lib" / name
    script.parent.mkdir()
    script.write_text(re.sub(r"@(\w+)@", lambda match: values[match[1]], template.read_text()))
    script.chmod(0o755)
    # A folder of the package's name beside the user hides nothing, and another Python on PATH changes nothing.
    (tmp_path / "fvs_ros").mkdir()
    (tmp_path / "fvs_ros" / "__init__.py").write_text("raise ImportError('the wrong package')")
    commands = {"fvs": ["--version"], "web": ["--help"]}
    arguments = commands.get(name, ["--ros-args", "--remap", "nonsense"])
    result = subprocess.run(
        [script, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if name == "fvs":
        assert (result.returncode, result.stdout) == (0, f"fvs_ros {fvs_ros.__version__}\n")
    elif name == "web":
        assert result.returncode == 0
        assert result.stdout.startswith("usage: web ")
    else:
        require_ros()
        assert result.returncode == 1
        assert "nonsense" in result.stderr
        assert "Traceback" not in result.stderr


def test_setup_names_the_ros_packages_that_are_missing(tmp_path: Path) -> None:
    """With an empty distribution: each one that package.xml asks for, by Debian's name."""
    require_ros()
    script = (ROOT / "scripts" / "setup.sh").read_text()
    function = re.search(r"^missing_ros_packages\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)
    assert function is not None
    (tmp_path / "share" / "ament_index" / "resource_index" / "packages").mkdir(parents=True)
    (tmp_path / "share" / "ament_index" / "resource_index" / "packages" / "launch_ros").touch()
    result = subprocess.run(
        ["bash", "-c", f"{function[0]}\nmissing_ros_packages"],
        cwd=ROOT,
        env={**os.environ, "BASE_PYTHON": sys.executable, "ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    missing = result.stdout.split()
    assert {"ros-jazzy-rclpy", "ros-jazzy-cv-bridge", "ros-jazzy-tf2-ros-py"} <= set(missing)
    assert "ros-jazzy-launch-ros" not in missing
    assert not [name for name in missing if "python3" in name]


def test_licence_readme_and_documentation_are_installed() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    installed = " ".join(re.findall(r"install\((?:FILES|DIRECTORY)([^)]*?)DESTINATION share", text))
    assert {"LICENSE", "README.md", "CHANGELOG.md", "docs", "config", "launch"} <= set(installed.split())


def test_rosdep_installs_every_plugin_that_the_tests_use(manifest: ElementTree.Element) -> None:
    declared = {element.text for tag in ("test_depend", "exec_depend") for element in manifest.findall(tag)}
    assert {"python3-pytest", "python3-pytest-timeout", "python3-hypothesis"} <= declared


def test_tests_are_collected_without_plugins(tmp_path: Path) -> None:
    """As on a distribution whose pytest has none: an option that only a plugin knows must not end everything."""
    command = [sys.executable, "-m", "pytest", "-p", "no:timeout", "--collect-only", "-q", "test/test_hashing.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_interfaces_import_beside_the_checkout(ros_domain_id: int) -> None:
    code = (
        "from fvs_ros.action import Ask as Action\n"
        "from fvs_ros.msg import MemoryState, Moment\n"
        "from fvs_ros.srv import Ask\n"
        "import fvs_ros.stream.types as types\n"
        "assert Ask.Response().moments == [] and Action.Feedback().token == ''\n"
        "assert {code.name: code.value for code in types.ErrorCode} == {\n"
        "    name: getattr(Ask.Response, name) for name in types.ErrorCode.__members__}\n"
        "assert all(getattr(Moment, kept.name) == kept for kept in types.Kept if kept)\n"
        "print(types.__file__)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).resolve() == ROOT / "fvs_ros" / "stream" / "types.py"


def shell(program: str, script: str, cwd: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    return subprocess.run([program, "-c", script], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def set_up() -> None:
    if not (ROOT / "install" / ".fvs-interfaces").exists():
        pytest.skip("there is nothing to enter: run `make setup` first")
    if (ROOT / ".venv" / ".fvs-ros-setup").exists():
        pytest.skip("this environment sources a ROS distribution, whose own files do not work with set -u")


@pytest.mark.parametrize("program", ["sh", "bash", "zsh"])
def test_entering_the_environment_twice_changes_nothing(program: str, set_up: None) -> None:
    show = 'echo "$PATH|$PYTHONPATH|$AMENT_PREFIX_PATH|$LD_LIBRARY_PATH"'
    result = shell(program, f"set -eu; . ./env.sh; {show}; . ./env.sh; {show}", ROOT)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == second
    path, python_path, ament, _ = first.split("|")
    assert path.split(":")[0] == f"{ROOT}/.venv/bin"
    assert python_path.split(":")[0] == str(ROOT)
    assert f"{ROOT}/install/fvs_ros" in ament.split(":")


@pytest.mark.parametrize("program", ["bash", "zsh"])
def test_the_environment_can_be_entered_from_elsewhere(program: str, set_up: None, tmp_path: Path) -> None:
    result = shell(program, f'. "{ROOT}/env.sh" && echo "$VIRTUAL_ENV"', tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, f"{ROOT}/.venv")


@pytest.mark.parametrize("program", ["sh", "bash"])
def test_entering_before_setup_says_what_to_run(program: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "env.sh", tmp_path)
    (tmp_path / "fvs_ros").mkdir()
    result = shell(program, ". ./env.sh", tmp_path)
    assert result.returncode != 0
    assert f"make -C {tmp_path} setup" in result.stderr
