"""Philox4x32-10 written once more, to compare with."""

from functools import cache


@cache
def four_words(seed: int, call: int, thread: int) -> tuple[int, ...]:
    """Philox4x32-10 of one counter in Python's integers."""
    word = 2**32
    c = [call % word, call // word, thread % word, thread // word]
    key = [seed % word, seed // word]
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [right // word ^ c[1] ^ key[0], right % word, left // word ^ c[3] ^ key[1], left % word]
        key = [(key[0] + 0x9E3779B9) % word, (key[1] + 0xBB67AE85) % word]
    return tuple(c)
