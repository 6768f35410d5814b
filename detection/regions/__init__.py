"""What region-based detectors share: R-CNN and SPP-net differ in features only."""
