"""How the training data is divided over data-parallel ranks and over the chain of jobs."""

from hpcplan.partition.data_shards.balance import Division, divide
from hpcplan.partition.data_shards.inputs import DataFile, changed_files, content_digest, read_inputs
from hpcplan.partition.data_shards.manifest import Manifest, manifest_text, read_manifest, write_manifest
from hpcplan.partition.data_shards.shards import (
    Range,
    Shards,
    choose_lanes,
    lanes_of_rank,
    make_shards,
    usable_sizes,
)

__all__ = [
    "DataFile",
    "Division",
    "Manifest",
    "Range",
    "Shards",
    "changed_files",
    "choose_lanes",
    "content_digest",
    "divide",
    "lanes_of_rank",
    "make_shards",
    "manifest_text",
    "read_inputs",
    "read_manifest",
    "usable_sizes",
    "write_manifest",
]
