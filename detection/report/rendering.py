"""The templates of pages."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape


def templates(**filters: Callable[..., Any]) -> Environment:
    """The templates, in which names and captions are escaped.

    Args:
        filters: that they may use, by name.
    """
    loader = PackageLoader("detection.report", "templates")
    made = Environment(loader=loader, autoescape=select_autoescape())
    made.filters |= filters
    return made
