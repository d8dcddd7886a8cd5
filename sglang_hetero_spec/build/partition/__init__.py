"""Find the tasks in a log of prompts: deduplicate, embed, cluster, name; merge later on. Never runs in a server."""

from sglang_hetero_spec.build.partition.duplicates import Distinct, Duplicate, distinct_prompts
from sglang_hetero_spec.build.partition.errors import PartitionError
from sglang_hetero_spec.build.partition.estimator import Partitioner
from sglang_hetero_spec.build.partition.merge import MergedTask, merge_tasks
from sglang_hetero_spec.build.partition.run import Partition, TaskFound, partition_log, partition_prompts

__all__ = [
    "Distinct",
    "Duplicate",
    "MergedTask",
    "Partition",
    "PartitionError",
    "Partitioner",
    "TaskFound",
    "distinct_prompts",
    "merge_tasks",
    "partition_log",
    "partition_prompts",
]
