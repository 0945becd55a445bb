"""Training: from tracked frames to an avatar. Needs PyTorch, but for :mod:`being_rt.train.config`."""
