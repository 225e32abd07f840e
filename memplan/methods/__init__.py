"""One file a method: which parameters train, and which modules are replaced."""
