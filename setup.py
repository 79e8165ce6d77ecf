"""pip install of the part that needs no ROS. colcon does not use this file: package.xml says ament_cmake."""

import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "human_scene_ros/__init__.py").read_text()).group(1)
README = HERE / "README.md"

setup(
    name="human_scene_ros",
    version=VERSION,
    description="Metric human bodies inside a metric map from ordinary cameras, over ROS 2",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["human_scene_ros", "human_scene_ros.*"]),
    package_data={"human_scene_ros": ["*/data/*", "*/data/*/*"]},
    # The message texts, so that recordings can be written and read without ROS; something to try it on.
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/human_scene_ros"]),
        ("share/human_scene_ros", ["package.xml", "LICENSE", "NOTICE"]),
        ("share/human_scene_ros/msg", sorted(glob("msg/*.msg"))),
        ("share/human_scene_ros/srv", sorted(glob("srv/*.srv"))),
        ("share/human_scene_ros/demo/recording", sorted(glob("demo/recording/*"))),
        ("share/human_scene_ros/demo/recording_multi", sorted(glob("demo/recording_multi/*"))),
    ],
    install_requires=[
        "numpy>=1.21",
        "scipy>=1.8",
        "torch>=2.2",
        "opencv-python-headless>=4.5,<6",
        "Pillow>=9.0",
        "safetensors>=0.4",
        "rosbags>=0.10,<0.12",
        "tqdm>=4.57",
        "PyYAML>=5.4",
    ],
    extras_require={"onnx": ["onnxruntime>=1.17", "onnx>=1.15"], "train": ["moderngl>=5.8"]},
    entry_points={"console_scripts": ["human-scene = human_scene_ros.cli:main"]},
    zip_safe=False,
)
