"""Run folders: layout, how a run begins, resumes and finishes, and what a run is known by; without torch."""

from rekd_edge.runs.identity import model_digests, source_digests
from rekd_edge.runs.layout import RunFolder
from rekd_edge.runs.lifecycle import begin, finish, reopen, restate, withdraw

__all__ = ["RunFolder", "begin", "finish", "model_digests", "reopen", "restate", "source_digests", "withdraw"]
