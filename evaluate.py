"""Test a trained model, on its own or on other data. See `--help`."""

import hydra
from omegaconf import DictConfig

from detection.config.check import check_config
from detection.config.command import of_one_job, run


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> float | None:
    """Check the config first, for what follows takes seconds to import."""
    with of_one_job():
        check_config(cfg)
        from detection.runs.evaluate import evaluate

        return evaluate(cfg)


if __name__ == "__main__":
    run(main)
