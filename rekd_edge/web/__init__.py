"""A bundle as a page: static files that any web server can host, or this machine alone."""

from rekd_edge.web.page import write_page
from rekd_edge.web.server import PageServer

__all__ = ["PageServer", "write_page"]
