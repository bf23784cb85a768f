"""Philox4x32-10 written once more, and the words that each thread of a CUDA dropout takes of it, to compare with."""

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


def thread_by_thread(numel: int, seed: int, offset: int, threads: int, vector: int) -> tuple[list[int], int]:
    """The word of each element as the threads of Dropout.cu take them one after another, and the most calls
    that a thread makes."""
    words, most_calls = [-1] * numel, 0
    for thread in range(threads):
        calls = iter(range(offset // 4, 2**63))
        taken = 0
        stride = threads * (4 if vector == 1 else vector)
        end = -(-numel // stride) * stride if vector == 1 else numel
        for start in range(thread * vector, end, stride):
            drawn: list[int] = []
            while len(drawn) < vector:
                drawn += four_words(seed, next(calls), thread)
                taken += 1
            for i in range(4 if vector == 1 else vector):
                element = start + i * threads if vector == 1 else start + i
                if element < numel:
                    words[element] = drawn[i]
        most_calls = max(most_calls, taken)
    return words, most_calls
