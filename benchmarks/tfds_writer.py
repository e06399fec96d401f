"""Write datasets in the on-disk layout of tensorflow-datasets, without TensorFlow."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2


def write_tfds(
    data_dir: Path,
    name: str,
    encoded: Sequence[bytes],
    labels: Sequence[int],
    features: Mapping[str, Any],
    file_format: str = "array_record",
) -> Path:
    """Write a dataset of version 1.0.0 with a split "train".

    Args:
      data_dir: the folder of all datasets.
      name: name of the dataset.
      encoded: encoded images, such as the content of PNG files.
      labels: one per image.
      features: `tfds.features` by name.
      file_format: written into the file name and the dataset's info.

    Returns:
      The folder of the dataset.
    """
    folder = data_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    tfds.features.FeaturesDict(features).save_config(str(folder))
    writer = ArrayRecordWriter(str(folder / f"{name}-train.{file_format}-00000-of-00001"), "group_size:1")
    for image, label in zip(encoded, labels, strict=True):
        example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
        example.features.feature["image"].bytes_list.value.append(image)
        example.features.feature["label"].int64_list.value.append(label)
        writer.write(example.SerializeToString())
    writer.close()
    split = {
        "name": "train",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": str(sum(map(len, encoded))),
        "shardLengths": [str(len(encoded))],
    }
    info = {"name": name, "version": "1.0.0", "fileFormat": file_format, "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder
