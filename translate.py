"""Translate images: ``python translate.py RUN --direction a2b IMAGES --out FOLDER``; ``--help`` says more."""

import sys

from unit.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["translate", *sys.argv[1:]]))
