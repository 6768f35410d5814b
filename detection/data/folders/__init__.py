"""Images in a folder for each class."""
