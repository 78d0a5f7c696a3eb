"""The command line: a module for each verb. Heavy imports happen inside the verb that needs them."""

from importlib import import_module

from rekd_edge.cli.application import app, main

__all__ = ["app", "main"]

VERBS = (
    "demo",
    "build",
    "train",
    "sweep",
    "export",
    "predict",
    "evaluate",
    "audit",
    "report",
    "bench",
    "inspect",
    "sign",  # and verify
    "verify_record",
    "monitor",
    "web",
    "push",
)
"""Modules of verbs in the order of the help, which is that of the work."""

for verb in VERBS:
    import_module(f"{__name__}.{verb}")
