"""The command line: a file for each verb. Heavy imports happen inside the verb that needs them."""

from rekd_edge.cli import (
    audit,
    bench,
    demo,
    evaluate,
    export,
    inspect,
    monitor,
    predict,
    report,
    sign,
    sweep,
    train,
    verify_record,
    web,
)
from rekd_edge.cli.application import app, main

__all__ = [
    "app",
    "audit",
    "bench",
    "demo",
    "evaluate",
    "export",
    "inspect",
    "main",
    "monitor",
    "predict",
    "report",
    "sign",
    "sweep",
    "train",
    "verify_record",
    "web",
]
