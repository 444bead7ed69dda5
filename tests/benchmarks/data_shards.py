"""How long it takes to divide 100,000 files, and how even they come out, beside round robin and the least possible.

python -m tests.benchmarks.data_shards [FILES [LANES]]
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hpcplan.partition.data_shards import DataFile, make_shards, read_manifest, write_manifest

__all__ = ["main"]


def main(words: Sequence[str]) -> None:
    """Print seconds and unevenness."""
    count, lanes = (int(words[0]) if words else 100_000), (int(words[1]) if len(words) > 1 else 1024)
    generator = random.Random(0)
    files = [DataFile(f"/data/part-{n:07d}.bin", int(generator.lognormvariate(17, 1.2))) for n in range(count)]
    turns = [sum(file.tokens for file in files[lane::lanes]) for lane in range(lanes)]
    mean = sum(turns) / lanes
    began = time.process_time()
    shards = make_shards(files, sequence_length=8192, global_batch=lanes, lanes=lanes)
    divided = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shards.jsonl"
        write_manifest(path, shards)
        written = time.process_time()
        size = path.stat().st_size
        read_manifest(path)
        read = time.process_time()
    division = shards.division
    print(f"{count:,} files over {lanes:,} lanes ({division.method})")
    print(f"longest lane over the mean: {division.imbalance:.4%}; in turns: {max(turns) / mean - 1:.2%}")
    print(f"over the least possible: at most {division.gap:.4%}")
    print(f"divided in {divided - began:.2f} s, written in {written - divided:.2f} s ({size / 1e6:.1f} MB), ", end="")
    print(f"read in {read - written:.2f} s of CPU")


if __name__ == "__main__":
    main(sys.argv[1:])
