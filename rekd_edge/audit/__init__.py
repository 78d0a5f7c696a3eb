"""A sceptic's questions to a run or a bundle: does the rationale decide, and by what it says?"""

from rekd_edge.audit.checks import CHECKS, Finding, Hearing
from rekd_edge.audit.run import audit

__all__ = ["CHECKS", "Finding", "Hearing", "audit"]
