"""Random numbers of a run: one generator for each use, all from one seed, so that no use disturbs another.

    start           the model's first weights         order           which examples make a batch
    augmentation    crops and flips                   probes          an optimiser's estimates of curvature

So two optimisers with the same seed see the same start, the same batches and the same crops, however many probes one draws.
"""

import numpy as np
import torch

from secondlook.arguments import one_of

USES = ("start", "order", "augmentation", "probes")


def generator(seed: int, use: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator for `use`, one of USES, of the run with this `seed`, an integer from 0; the same at every call."""
    one_of(USES).check(use=use)
    word = np.random.SeedSequence([seed, USES.index(use)]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(word[0] >> np.uint64(1)))  # 63 bits: seeds of torch are signed
