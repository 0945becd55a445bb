"""Tools for developers: the training of the viseme network, and the measurement of lip sync. Not installed."""
