"""Train UNIT on two folders of images: ``python train.py --data.a DIR --data.b DIR``; ``--help`` says more."""

import sys

from unit.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
