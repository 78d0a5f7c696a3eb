"""Every setting of a training run: the schema of recipes and of `--set`.

groups.py    what may be set, by subject, with types, bounds and defaults
config.py    the groups as one run, and what follows from them
recipes.py   recipes and overrides to a run's settings
"""

from rekd_edge.training.configuration.config import REMOVED, TrainingConfig, unused_by
from rekd_edge.training.configuration.groups import Process
from rekd_edge.training.configuration.recipes import all_keys, load_config, read_yaml, shipped_recipes

__all__ = [
    "REMOVED",
    "Process",
    "TrainingConfig",
    "all_keys",
    "load_config",
    "read_yaml",
    "shipped_recipes",
    "unused_by",
]
