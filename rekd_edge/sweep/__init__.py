"""Sweeps: methods x data x sizes x settings x seeds to one table of means, beside the published figures."""
