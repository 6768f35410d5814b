"""What `--help` shows: config groups (`${groups:}` in a template), and options of commands."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import MISSING as REQUIRED
from dataclasses import fields
from pathlib import Path

from omegaconf import OmegaConf

from detection.config.plain import CONF

INTERNAL = ("hydra", "fit")  # pieces of other configs


def list_groups(conf: Path = CONF) -> str:
    """A line a group with its choices; of experiments, the tables and how many rows each has."""
    lines = []
    for folder in sorted(p for p in conf.iterdir() if p.is_dir() and p.name not in INTERNAL):
        if folder.name == "experiment":
            lines.append("experiment: a row of a published table, PAPER/TABLE/ROW (files in conf/)")
            for paper in sorted(folder.iterdir()):
                tables = (
                    f"{t.name} ({len(rows(t))})" if t.is_dir() else t.stem
                    for t in sorted(paper.iterdir())
                )  # fmt: skip
                lines.append(f"  {paper.name}/: {', '.join(tables)}")
        else:
            names = sorted(p.stem for p in rows(folder))
            lines.append(f"{folder.name}: {', '.join(names)}")
    return "\n".join(f"  {line}" for line in lines)


OmegaConf.register_new_resolver("groups", list_groups, replace=True)


def rows(table: Path) -> list[Path]:
    """The choices in a folder; what several share stands in files named _...."""
    return [path for path in table.glob("*.yaml") if not path.stem.startswith("_")]


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether a command line asks what a command takes."""
    return any(word in ("--help", "-h", "help") for word in words)


def options_help(usage: str, options: type) -> str:
    """The options of a command, from the dataclass that holds them and its docstring."""
    text = inspect.getdoc(options) or ""
    described = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, flags=re.MULTILINE)
    meaning = {name: " ".join(lines.split()) for name, lines in described}
    lines = [usage, ""]
    for field in fields(options):
        default = "" if field.default in (REQUIRED, "???") else f" (default {field.default})"
        lines.append(f"  {field.name}=   {meaning.get(field.name, '')}{default}")
    return "\n".join(lines)
