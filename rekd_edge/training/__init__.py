"""Losses, annealing, trainer, teacher targets and recipes: from settings to a finished run."""
