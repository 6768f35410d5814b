"""What classifiers share: the network, its training, the views that it is tested on."""
