"""Trees of small models, as checkpoints keep them."""

BACKBONE = {
    "_target_": "detection.backbones.zf5.zf5", "weights": None, "width": 0.05,
    "padding": "paper", "normalization": "channel", "input_px": 64,
    "mean": [0.5] * 3, "std": [0.25] * 3,
}  # fmt: skip
CLASSIFIER = {
    "_target_": "detection.classification.classifier.Classifier", "side_px": 64,
    "features": {"_target_": "detection.sppnet.image_features.PyramidFeatures",
                 "levels": [2, 1], "backbone": BACKBONE},
}  # fmt: skip
DETECTOR = {
    "_target_": "detection.regions.detector.RegionDetector", "scoring": "softmax",
    "search": {"_target_": "detection.proposals.selective_search.SelectiveSearch",
               "engine": "own", "min_side_px": 10, "max_boxes": 30},
    "features": {"_target_": "detection.sppnet.features.SPPFeatures", "levels": [2, 1],
                 "scales_px": [100], "backbone": BACKBONE},
}  # fmt: skip
WARPED = DETECTOR | {
    "features": {"_target_": "detection.regions.warped_features.WarpedFeatures", "padding_px": 4,
                 "backbone": BACKBONE},
}  # fmt: skip
