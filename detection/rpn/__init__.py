"""The per-class RPN, ResNet's localiser of ILSVRC 2015 (He et al. 2015, appendix C)."""
