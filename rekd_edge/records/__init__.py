"""Decisions on record: what was decided, from what, by which bundle, so that it can be checked later."""

from rekd_edge.records.log import DecisionLog
from rekd_edge.records.record import read_records
from rekd_edge.records.replay import Replay, verify_records

__all__ = ["DecisionLog", "Replay", "read_records", "verify_records"]
