"""The systems that brought deep networks to object detection."""

__version__ = "0.1.0"
