"""What is to be trained: model shapes, the training run, parameters and FLOPs, Hugging Face configurations."""

from hpcplan.workload.load import LoadedWorkload, list_workloads, load_workload
from hpcplan.workload.model import ModelShape, Workload

__all__ = ["LoadedWorkload", "ModelShape", "Workload", "list_workloads", "load_workload"]
