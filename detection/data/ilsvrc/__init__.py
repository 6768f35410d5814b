"""ILSVRC: classification and detection."""
