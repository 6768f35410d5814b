"""What detections are worth: torchmetrics' metrics of the challenges."""

from detection.metrics.ilsvrc_det import ILSVRCDetectionMAP
from detection.metrics.localization import LocalizationError
from detection.metrics.voc_map import VOCMeanAveragePrecision

__all__ = ["ILSVRCDetectionMAP", "LocalizationError", "VOCMeanAveragePrecision"]
