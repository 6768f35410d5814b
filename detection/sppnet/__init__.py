"""SPP-net (He et al. 2014): one map an image, windows pooled on it by a spatial pyramid."""
