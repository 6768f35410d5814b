"""Share of the time in which R-CNN's fine-tuning computes: forward, backward, step over wall time.

Decoding, normalising and warping of windows are not counted as computing.

python benchmarks/finetune_busy.py [OPTIONS]   (such as data=voc data.root=FOLDER)
"""

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detection.rcnn import features as rcnn_features
from hydra import compose, initialize_config_dir

from detection.backbones.backbone import Backbone
from detection.config.build import build
from detection.disk.checkpoints import make_detector
from detection.runs.resume import plain
from detection.runs.train import read_data
from detection.runtime.memory import keep_freed_memory

CONF = Path(__file__).resolve().parents[1] / "conf"
STEPS, NOT_COUNTED = 14, 2


class Clock(pl.Callback):
    """Time within steps, and from the first counted step to the end of the last."""

    def __init__(self) -> None:
        self.busy = self.started = self.begun = self.left_out = 0.0

    def leave_out(self, owner: Any, name: str) -> None:
        """Do not count what a function takes."""
        work = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = work(*arguments)
            self.left_out += time.perf_counter() - start
            return result

        setattr(owner, name, timed)

    def on_train_batch_start(self, trainer: Any, stage: Any, batch: Any, index: int) -> None:
        self.begun, self.left_out = time.perf_counter(), 0.0

    def on_train_batch_end(
        self, trainer: Any, stage: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        now = time.perf_counter()
        if index < NOT_COUNTED:
            self.started = now
        else:
            self.busy += now - self.begun - self.left_out
            self.wall = now - self.started


def main() -> None:
    keep_freed_memory()
    options = sys.argv[1:] or ["data=shapes", "backbone=alexnet"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", ["model=rcnn", *options, "backbone.weights=null",
                                         "recipe.warped_finetune_steps_per_image=0",
                                         f"recipe.warped_finetune_min_steps={STEPS}"]))  # fmt: skip
    data = read_data(config["data"], config["model"]["detector"])
    parts = {k: config["model"][k] for k in ("features", "detector")}
    detector = make_detector({"backbone": config["backbone"], **parts}, len(data.class_names))
    stage = build(config["model"]["stages"]["finetune"], detector=detector, data=data, seed=1)
    clock = Clock()
    clock.leave_out(rcnn_features, "warp_regions")
    clock.leave_out(Backbone, "normalize")
    trainer = pl.Trainer(**stage.trainer_options(), callbacks=[clock], logger=False,
                         enable_checkpointing=False, limit_val_batches=0,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(stage)
    steps = STEPS - NOT_COUNTED
    print(
        f"{steps} steps of {sum(stage.per_batch)} windows: {clock.wall / steps:.2f} s a step, busy "
        f"{100 * clock.busy / clock.wall:.1f} % of the time"
    )


if __name__ == "__main__":
    main()
