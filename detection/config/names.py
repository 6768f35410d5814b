"""The nearest right name to a wrong one."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A hint at the nearest of `options`, or nothing.

    >>> did_you_mean("spnet", ["sppnet", "rcnn"])
    ' (did you mean sppnet?)'
    >>> did_you_mean("zzz", ["sppnet"])
    ''
    """
    options = list(options)
    last = name.rpartition(".")[2]  # it may be right, and its place wrong
    near = [o for o in options if o.rpartition(".")[2] == last]
    near += difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
