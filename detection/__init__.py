"""The systems that brought deep networks to object detection."""

import os

# it asks the network for a newer version of itself in every process
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
