"""Every random draw is a function of where it is used, never of what was drawn before.

Noise, order and augmentation take their seed from (seed, purpose, step, domain, index in the global batch), so that
resuming needs no generator state and any batch can be reproduced.
"""

import hashlib


def seed_for(seed: int, purpose: str, *where: int | str) -> int:
    """Return a 63-bit seed for one `purpose` at one location, e.g. ``seed_for(seed, "noise", step, domain, index)``.

    Seeds of different purposes or locations are independent for all practical purposes (BLAKE2b of the arguments).
    """
    text = repr((int(seed), purpose, *(item if isinstance(item, int) else str(item) for item in where)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
