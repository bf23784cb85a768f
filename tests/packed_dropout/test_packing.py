"""The layout of the bits and the random words, against definitions written out here."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pmexp.packed_dropout import pack_bits, unpack_bits
from pmexp.packed_dropout.reference import draw_mask, packed_bytes, philox, random_words

masks = st.lists(st.booleans(), max_size=70)
widths = st.sampled_from([1, 2, 4])


@given(masks, widths)
def test_layout_is_natural_order_least_significant_first(mask: list[bool], bits: int) -> None:
    packed = pack_bits(torch.tensor(mask, dtype=torch.bool), bits)
    expected = [0] * packed_bytes(len(mask), bits)
    for element, keep in enumerate(mask):
        expected[element * bits // 8] |= int(keep) << (element * bits % 8)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == expected


@given(masks, widths)
def test_unpack_inverts_pack(mask: list[bool], bits: int) -> None:
    tensor = torch.tensor(mask, dtype=torch.bool)
    assert torch.equal(unpack_bits(pack_bits(tensor, bits), tensor.shape, bits), tensor)


@pytest.mark.parametrize("numel", [0, 1, 7, 8, 9, 31, 33, 1001])
def test_one_bit_takes_an_eighth_of_a_byte(numel: int) -> None:
    assert pack_bits(torch.ones(numel, dtype=torch.bool)).numel() == -(-numel // 8)


def test_pack_follows_logical_order_of_a_transposed_mask() -> None:
    mask = torch.tensor([[True, False, False], [True, True, False]])
    assert torch.equal(pack_bits(mask.T), pack_bits(mask.T.contiguous()))


def test_unpack_refuses_a_wrong_size_and_dtype() -> None:
    with pytest.raises(ValueError, match="shape \\(9,\\) at 1 bit"):
        unpack_bits(torch.zeros(1, dtype=torch.uint8), (9,))
    with pytest.raises(ValueError, match="int8"):
        unpack_bits(torch.zeros(1, dtype=torch.int8), (8,))
    with pytest.raises(ValueError, match="allowed are 1, 2 and 4"):
        pack_bits(torch.ones(3), bits=3)


@pytest.mark.parametrize(
    ("counter_and_key", "expected"),
    [
        (0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (0xFFFFFFFF, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ],
)
def test_philox_known_answers(counter_and_key: int, expected: str) -> None:
    """They are the test vectors published with Random123."""
    word = torch.tensor(counter_and_key)
    words = philox((word, word, word, word), (word, word))
    assert " ".join(f"{int(w):08x}" for w in words) == expected


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**62 - 1])
def test_element_order_of_the_random_words(seed: int) -> None:
    """Element 32 b + 8 w + l is word w of counter 8 b + l under the key (seed low, seed high)."""
    words = random_words(75, torch.tensor([seed]))
    key = (torch.tensor(seed & 0xFFFFFFFF), torch.tensor(seed >> 32))
    zero = torch.tensor(0)
    for element in (0, 7, 8, 31, 32, 45, 74):
        block, inside = divmod(element, 32)
        word, lane = divmod(inside, 8)
        counter = torch.tensor(8 * block + lane)
        assert words[element] == philox((counter, zero, zero, zero), key)[word]


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    seed = torch.tensor([5])
    assert torch.equal(random_words(1001, seed)[:33], random_words(33, seed))


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_share_of_kept_elements(p: float) -> None:
    """It is within five standard errors of 1 - p: a 16-bit threshold without rescaling would still pass, an 8-bit
    one (off by 0.0023 at p = 0.1) would not."""
    draws = 4_000_000
    kept = draw_mask(torch.Size([draws]), torch.tensor([11]), p).double().mean()
    assert abs(kept - (1 - p)) < 5 * (p * (1 - p) / draws) ** 0.5


def test_bytes_of_the_mask_are_uniform() -> None:
    """Chi-square over the 256 byte values at p = 0.5 has 255 degrees of freedom, bound at p-value 1e-6."""
    packed = pack_bits(draw_mask(torch.Size([8 * 256 * 400]), torch.tensor([3]), 0.5))
    counts = torch.bincount(packed.int(), minlength=256).double()
    assert ((counts - 400) ** 2 / 400).sum() < 377.0
