"""Packaging: only `dreamer` is installed, with configs/ and pretrained agents as package data.

Exact versions with hashes are in requirements.lock and requirements-gpu.lock (`make lock`).
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Returns ``__version__`` from dreamer/__init__.py, which is not imported for it."""
    for line in (ROOT / "dreamer" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("dreamer/__init__.py has no __version__")


def read_readme() -> str:
    """Returns the README, for the package's page."""
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


setup(
    name="dreamer-tf2",
    version=read_version(),
    description="Dreamer: control from images by latent imagination, in TensorFlow 2",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    author="The Dreamer for TensorFlow 2 authors",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    # labmaze, which dm_control needs, has no wheels above Python 3.12.
    python_requires=">=3.11,<3.13",
    packages=[
        *find_packages(include=["dreamer", "dreamer.*"]), "dreamer.configs", "dreamer.pretrained",
    ],
    # These lie elsewhere in the repository, and inside the installed package.
    package_dir={"dreamer.configs": "configs", "dreamer.pretrained": "baselines/pretrained"},
    package_data={
        "dreamer.configs": ["*.yaml", "**/*.yaml"],
        "dreamer.pretrained": ["*/**"],
        "dreamer.watching": ["page/*"],
    },
    entry_points={"console_scripts": ["dreamer = dreamer.__main__:main"]},
    install_requires=[
        # These three must move together.
        "tensorflow==2.21.*",
        "tf_keras==2.21.*",
        "tensorboard==2.21.*",
        "tensorflow-probability[tf]==0.25.*",
        # A pair: mujoco 4 breaks dm_control 1.0.50.
        "dm_control==1.0.50",
        "mujoco==3.17.0",
        "gymnasium>=1.0",
        "numpy>=1.26",
        "ruamel.yaml>=0.18",
        "filelock>=3.16",
        "rich>=13",
        "pillow>=10",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]==2.21.*"],
        "atari": ["ale-py>=0.10"],
        "gym-envs": ["gymnasium[box2d,mujoco]>=1.0", "minigrid>=3.0"],
        "vizdoom": ["vizdoom>=1.3"],
        "mp4": ["imageio-ffmpeg>=0.5"],
        "plots": ["jinja2>=3.1", "matplotlib>=3.8", "scipy>=1.15"],
        "sweep": ["ray>=2.9"],
        "watch": ["starlette>=0.40", "uvicorn>=0.35", "websockets>=13"],
        "wandb": ["wandb>=0.17"],
        "mlflow": ["mlflow>=2.10"],
        "docs": [
            "mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.26",
        ],
        "dev": [
            "mypy>=1.10", "pytest>=8", "pytest-xdist>=3.6", "ruff>=0.5", "setuptools>=77",
            "uv>=0.4",
        ],
    },
)
