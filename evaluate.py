"""Test a trained model, on its own or on other data. See `--help`."""

import hydra
from omegaconf import DictConfig, ListConfig

from detection.config.check import check_config
from detection.config.command import of_one_job, run
from detection.disk.run_files import find_checkpoint


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> float | None:
    """Check the config first, for what follows takes seconds to import."""
    with of_one_job():
        check_config(cfg)
        for name in cfg.ckpt if isinstance(cfg.ckpt, ListConfig) else [cfg.ckpt]:
            find_checkpoint(name)
        from detection.runs.evaluate import evaluate

        return evaluate(cfg)


if __name__ == "__main__":
    run(main, composes=True)
