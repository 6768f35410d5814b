"""Train a model: compose the config, run its stages, test, report. See `--help`."""

import hydra
from omegaconf import DictConfig

from detection.config.check import check_config
from detection.config.command import of_one_job, run
from detection.runs.trial import needs_own_process, run_trial


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Check the config first, for what follows takes seconds to import."""
    with of_one_job():
        check_config(cfg)
        if needs_own_process(cfg):
            return run_trial(cfg)
        from detection.runs.train import train

        return train(cfg)


if __name__ == "__main__":
    run(main, composes=True)
