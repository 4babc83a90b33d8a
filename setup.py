"""Package metadata for pip and for colcon (ament_python), which reads setup.py only."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "wm_nodes"
SHARE = f"share/{NAME}"
NODES = (
    "camera encoder world_model policy agent batched_agent robot recorder replay demonstrator "
    "trainer monitor arm_sim scripted_policy plan_recorder"
).split()

# torch and torchvision have no exact version, so that each machine keeps its own build.
CORE = [
    "huggingface_hub",
    "numcodecs",
    "numpy<2.4",
    "opencv-python-headless",
    "pillow",
    "psutil",
    "pydantic>=2.7",
    "pyyaml",
    "safetensors",
    "supervisor>=4.2",
    "tensorboard",
    "timm>=1.0.9",
    "torch>=2.2",
    "torchvision",
    "tyro>=0.9",
    # For readers of logs: the log itself is written without it. zarr 3 needs Python 3.11.
    "zarr>=3.0,<3.2; python_version >= '3.11'",
]
EXTRAS = {
    # ROS 2 Kilted from PyPI wheels, for machines without ROS 2.
    "ros": [
        "ros-kilted-rclpy",
        "ros-kilted-rmw-fastrtps-cpp",
        "ros-kilted-common-interfaces",
    ],
    "sim": [
        "metaworld==3.1.1",
        "mujoco==3.3.0",
        "dm_control==1.0.28",
        "gymnasium-robotics==1.4.2",
        "PyOpenGL",
    ],
    # Gymnasium's classic control and Box2D, for sim_gym; other tasks have packages of their own.
    "gym": ["gymnasium[box2d,classic-control]>=1.0"],
    "viz": ["av", "matplotlib", "rerun-sdk>=0.23"],
    # Other formats in and out of a log: wm log import, wm log export.
    "formats": ["av", "h5py", "pyarrow", "rosbags"],
    # Archives of logs in object stores: wm log archive, wm train --log s3://...
    "s3": [
        "obstore>=0.8",
        "zarr>=3.1,<3.2; python_version >= '3.11'",
    ],
    # The documentation site: make docs.
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=1.0"],
    # Without an extra named "test", `colcon test` finds no tests and reports no error.
    "test": [
        "colcon-bash",
        "colcon-package-information",
        "colcon-package-selection",  # colcon build --packages-select wm_nodes
        "colcon-ros",
        "boto3",
        "flask",  # with flask-cors and moto: an S3 server on this computer
        "flask-cors",
        "hypothesis",
        "import-linter>=2.3; python_version >= '3.11'",
        "moto[s3]>=5",
        "mypy",
        "pre-commit",
        "pytest",
        "pytest-benchmark",
        "pytest-timeout",
        "pytest-xdist",
        "ruckig",  # time-optimal braking, to compare with
        "ruff",
        "scipy",  # statistical tests of random draws
        # Reads what the log writes, and is not zarr.
        "tensorstore; python_version >= '3.11'",
        "types-PyYAML",
    ],
}


def shared_files() -> list[tuple[str, list[str]]]:
    """Files that land under share/, folder by folder, as (target folder, [source, ...])."""
    folders: dict[str, list[str]] = {
        "share/ament_index/resource_index/packages": [f"resource/{NAME}"],
        SHARE: ["package.xml"],
    }
    for root in ("launch", "config", "models/pretrained", "datasets/samples"):
        for path in sorted(Path(root).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                folders.setdefault(f"{SHARE}/{path.parent}", []).append(str(path))
    return list(folders.items())


setup(
    name=NAME,
    version="0.1.0",
    description="Robot learning with world models on ROS 2",
    long_description=Path("README.md").read_text() if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    author="wm_nodes developers",
    author_email="wm-nodes@example.org",
    maintainer="wm_nodes developers",
    maintainer_email="wm-nodes@example.org",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=[NAME, f"{NAME}.*"]),
        *find_packages("models"),
        *find_packages("datasets"),
    ],
    package_dir={"wm_models": "models/wm_models", "wm_datasets": "datasets/wm_datasets"},
    package_data={"": ["py.typed", "*.yaml"]},
    data_files=shared_files(),
    install_requires=CORE,
    extras_require=EXTRAS,
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "wm = wm_nodes.cli.main:main",
            *(f"{node} = {NAME}.nodes.{node}:main" for node in NODES),
        ]
    },
)
