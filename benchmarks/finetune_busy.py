"""Share of the time in which R-CNN's fine-tuning computes: forward, backward, step over wall time.

Decoding, normalising and warping of windows are not counted as computing.

python -m benchmarks.finetune_busy [OPTIONS]   (such as data=voc data.root=FOLDER)
"""

import sys
import time
from typing import Any

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir

from detection.backbones.backbone import Backbone
from detection.config.build import build, build_model
from detection.config.plain import CONF, plain
from detection.regions import warped_features
from detection.runs.train import build_data, model_tree
from detection.runtime.memory import keep_freed_memory

STEPS, NOT_COUNTED = 14, 2
LENGTH = "model.stages.finetune.length"


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
        words = ["backbone.weights=null", f"{LENGTH}.steps_per_image=0"]
        words += [f"{LENGTH}.min_steps={STEPS}"]
        config = plain(compose("train", ["model=rcnn", *options, *words]))
    data, evaluator = build_data(config["data"])
    data.setup("fit")
    detector = build_model(model_tree(config), data.num_classes)
    detector.prepare(data)
    stage = build(config["model"]["stages"]["finetune"]).stage(detector, data, evaluator, 1)
    clock = Clock()
    clock.leave_out(warped_features, "warp_regions")
    clock.leave_out(Backbone, "normalize")
    trainer = pl.Trainer(**stage.trainer_options(), callbacks=[clock], logger=False,
                         enable_checkpointing=False, limit_val_batches=0,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(stage)
    steps = STEPS - NOT_COUNTED
    print(
        f"{steps} steps of {sum(stage.sampler.per_batch)} windows: {clock.wall / steps:.2f} s a "
        f"step, busy {100 * clock.busy / clock.wall:.1f} % of the time"
    )


if __name__ == "__main__":
    main()
