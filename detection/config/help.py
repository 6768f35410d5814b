"""The list of config groups that `--help` shows, as `${groups:}` in its template."""

from pathlib import Path

from omegaconf import OmegaConf

from detection.config.plain import CONF

INTERNAL = ("parts", "hydra")  # pieces of other configs


def group_list(conf: Path = CONF) -> str:
    """A line a group with its choices; of experiments, the tables and how many rows each has."""
    lines = []
    for folder in sorted(p for p in conf.iterdir() if p.is_dir() and p.name not in INTERNAL):
        if folder.name == "experiment":
            lines.append("experiment: a row of a published table, PAPER/TABLE/ROW (files in conf/)")
            for paper in sorted(folder.iterdir()):
                tables = (f"{t.name} ({len(list(t.iterdir()))})" for t in sorted(paper.iterdir()))
                lines.append(f"  {paper.name}/: {', '.join(tables)}")
        else:
            names = sorted(p.stem for p in folder.glob("*.yaml"))
            lines.append(f"{folder.name}: {', '.join(names)}")
    return "\n".join(f"  {line}" for line in lines)


OmegaConf.register_new_resolver("groups", group_list, replace=True)
