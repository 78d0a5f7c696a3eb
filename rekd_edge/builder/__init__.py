"""From one's own data to an int8 bundle, by one command."""

from rekd_edge.builder.run import build

__all__ = ["build"]
