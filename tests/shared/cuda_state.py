"""The state of a CUDA generator, without a GPU: what tests of CUDA masks stand in for one with."""


class CudaState:
    """Holds a seed, and an offset in words drawn."""

    def __init__(self, seed: int, offset: int) -> None:
        self.seed, self.offset = seed, offset
        self.extra_calls = 0  # a torch whose draw is another one makes such calls

    def initial_seed(self) -> int:
        return self.seed

    def get_offset(self) -> int:
        return self.offset

    def set_offset(self, offset: int) -> None:
        assert offset % 4 == 0
        self.offset = offset
