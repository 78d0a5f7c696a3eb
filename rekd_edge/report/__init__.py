"""One self-contained HTML page about runs and bundles: figures, curves, an audit, and a gallery of their rationales."""

from rekd_edge.report.page import write_report

__all__ = ["write_report"]
