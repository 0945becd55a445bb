"""``python -m torch.distributed.run --nproc-per-node 2 -m being_rt.train DATASET``: ``being train`` on several GPUs."""

import sys

from being_rt.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
