"""From a video of a person to a tracked data set."""
