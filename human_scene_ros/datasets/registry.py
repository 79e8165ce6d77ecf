"""All data sets that can be converted, by name."""

from __future__ import annotations

from human_scene_ros.datasets import bedlam, egoexo4d, egohumans, emdb, multicam, rgbd, rich, sintel, threedpw
from human_scene_ros.datasets.sequence import Dataset

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for module in (emdb, rich, threedpw, egohumans, egoexo4d, rgbd, sintel, bedlam, multicam)
    for dataset in module.DATASETS
}
