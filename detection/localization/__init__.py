"""What localisers share: boxes for the classes that are asked for, and who names the classes."""
