"""PASCAL VOC: annotations, folders, releases."""
