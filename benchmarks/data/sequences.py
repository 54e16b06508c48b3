"""Text of a split, in sequences of tokens."""

import numpy as np

from benchmarks.data.images import Records


class Sequences:
    """Sequences of tokens, all in memory. An epoch may have fewer of them: then the next has others."""

    def __init__(self, source: Records, per_epoch: int | None = None) -> None:
        """Decodes them all, and shuffles those of which an epoch has some only."""
        tokens = np.stack([example["tokens"] for example in source.read(list(range(len(source))))])
        if per_epoch is not None:
            tokens = np.random.default_rng(0).permutation(tokens)
        self.tokens = tokens
        self._per_epoch = min(per_epoch or len(tokens), len(tokens))

    def __len__(self) -> int:
        """Returns the number of sequences in an epoch."""
        return self._per_epoch

    def load(self, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens [n, length], and at each place the token after it.

        The last number of the seed is the epoch. Epochs go through all sequences in turn.
        """
        epoch = 0 if seed is None else seed[-1]
        chosen = self.tokens[(epoch * len(self) + indices) % len(self.tokens)]
        return chosen[:, :-1], chosen[:, 1:]
