"""The mirror's test of answers that differ, over many drawn mirrors at once; see ``boundary``."""

import numpy as np

from controller.core import sequential
from controller.core.arrays import FloatArray, as_array
from controller.core.batches import LEAST_BATCHES, LEAST_BLOCKS
from controller.core.scores import LEAST_UNITS, TAU_FACTORS
from controller.planning.boundary import Flags, Reading, Side, State, Traffic
from controller.planning.champion import Champion


class Differences:
    """``pair`` kinds, in a mirror: answers that differ, each an independent coin. Harm is by how much more differ."""

    def __init__(self, champion: Champion) -> None:
        self.champion = champion
        scale = champion.plan.scale
        self.tau = champion.plan.tau / scale
        self.delta, self.beyond = champion.plan.margin / scale, champion.plan.harm_margin / scale

    def worst(self) -> float:
        """Every answer differs."""
        return 1 - self.champion.base

    def margin(self) -> float:
        """The share of answers that may differ."""
        return self.delta

    def gross(self) -> float:
        """Two margins more than usual."""
        return min(self.worst(), 2 * self.delta)

    def first_guess(self, pi: float) -> float:
        """Requests that one look at a fixed size would need; ``pi`` does not matter where both arms answer."""
        room = abs(self.delta - self.champion.base) or self.delta
        return max(50.0, 6.2 * self.delta / room**2)

    def fold(
        self, rng: np.random.Generator, state: State, harm: FloatArray, traffic: Traffic, side: Side = "both"
    ) -> tuple[State, Reading]:
        """``core.pairs`` on drawn requests, (rows, looks): their number, those that differ, and blocks."""
        shape = np.broadcast_shapes(traffic.challenger.shape, harm[:, None].shape)
        n = rng.poisson(np.broadcast_to(traffic.challenger, shape))
        k = rng.binomial(n, np.clip(self.champion.base + harm[:, None], 0, 1))
        new = np.stack([as_array(n), as_array(k), as_array(np.broadcast_to(traffic.blocks, shape))])
        if state.sums is not None:
            new[..., 0] += state.sums
        sums = np.cumsum(new, axis=-1)
        return State(sums=sums[..., -1]), self.read(sums, side)

    def read(self, sums: FloatArray, side: Side = "both") -> Reading:
        """The variance is the largest of that per request and that between blocks, or runs of blocks, about the
        boundary: the longer the runs, the more of θ's distance to it is in each; of the longest there are at least
        ``LEAST_BATCHES``."""
        n, k, blocks = sums
        runs = blocks / np.exp2(np.floor(np.log2(np.maximum(blocks / LEAST_BATCHES, 1))))
        enough = (n >= LEAST_UNITS) & (blocks >= LEAST_BLOCKS) & (k > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            theta = k / n

            def se2(centre: float) -> FloatArray:
                between = n * theta * (1 - theta) + np.square((theta - centre) * n) / runs
                return as_array(np.where(enough, np.maximum(k, between) / np.square(n), np.inf))

            shut: Flags = theta[..., -1] - 2 * np.sqrt(k[..., -1]) / n[..., -1] > self.delta
        harm = proof = np.zeros(n.shape)
        if side != "proof":
            taus = [f * self.tau for f in TAU_FACTORS]
            log_e = sequential.log_e_one_sided_mixture(theta - self.beyond, se2(self.beyond), taus)
            harm = np.where(enough, as_array(log_e), 0.0)
        if side != "harm":
            proof = np.where(enough, sequential.log_e_one_sided(self.delta - theta, se2(self.delta), self.tau), 0.0)
        return Reading(harm, proof, ~shut)
