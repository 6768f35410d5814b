"""OverFeat (Sermanet et al. 2013): dense classification with offset pooling."""
