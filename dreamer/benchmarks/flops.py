"""Floating-point operations of one update and of one action, counted from layer shapes.

The count covers matrix products and convolutions, forward and backward, at two operations per
multiply-add. It leaves out elementwise work (activations, losses, Adam), which is below 1 %.

A layer runs its multiply-adds up to three times per row (an image or a state): forward, for the
gradient with respect to its inputs, and for the gradient with respect to its weights. Each of these
is a pass; the count includes a gradient only where learning needs it:

- Images, vectors and replayed actions need no gradient.
- Behaviour learning needs no gradient with respect to the weights of dynamics, reward and discount.
- The actor reads features behind a stop_gradient.
- The first state of a sequence, and of an imagined trajectory, needs no gradient.
- The lambda-returns V_1..V_(H-1) do not contain r_H, and the actor cannot change v_1. Rewards,
  discounts and values therefore have gradients at H - 1 of H steps, and so has the value loss.
- The value network runs once forward and twice backward: for its own loss and for the actor's.
- The score-function gradient does not pass through the dynamics. A planner imagines nothing.

At full size (B = T = 50, 64x64x3 images, A = 6) an update takes 903e9 operations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from dreamer.config.config import Config
from dreamer.envs.spec import Space


def convolution_macs(side: int, kernel: int, stride: int, channels: int, filters: int) -> int:
    """Returns the multiply-adds of a valid convolution over an image of `side` x `side` pixels."""
    outputs = (side - kernel) // stride + 1
    return outputs**2 * kernel**2 * channels * filters


def transposed_macs(side: int, kernel: int, channels: int, filters: int) -> int:
    """Returns the multiply-adds of a transposed convolution: each pixel meets the whole kernel."""
    return side**2 * kernel**2 * channels * filters


class FlopCounter:
    """Counts the operations of the networks that a config describes.

    Args:
        config: The config.
        obs_space, act_space: The spaces of observations and of actions. Images are
            [64, 64, C], vectors [size].
    """

    def __init__(self, config: Config, obs_space: Mapping[str, Space], act_space: Space) -> None:
        self._config, self._actions = config, act_space.shape[0]  # A
        self._outputs = self._actions * (1 if act_space.discrete else 2)  # of the actor
        self._encoded = _channels_and_vectors(obs_space, config.encoder.keys)
        self._decoded = _channels_and_vectors(obs_space, config.decoder.keys)
        channels, vectors = self._encoded
        encoder = config.encoder
        # E: 2 x 2 pixels of 8 * depth channels, and the output of the vectors' MLP.
        self._embed = 32 * encoder.cnn_depth if channels else 0
        self._embed += encoder.mlp_units if vectors and encoder.mlp_layers else vectors
        self._stoch = config.rssm.stoch if config.rssm.kind != "deterministic_only" else 0  # S
        self._deter = config.rssm.deter if config.rssm.kind != "stochastic_only" else 0  # D
        self._feat = self._stoch + self._deter  # F
        self._batch = config.train.batch_size, config.train.batch_length  # B, T
        self._planning = config.behavior.policy == "planner"
        lambda_plans = config.planner.returns == "lambda"
        self._has_value = lambda_plans if self._planning else bool(config.behavior.value)
        self._heads = ["reward", "discount"] if config.discount.enabled else ["reward"]
        self._parts: Counter[str] = Counter()

    def update(self) -> dict[str, int]:
        """Returns the operations of one update, by network, such as "imagined dynamics".

        The exploration's are included if it is configured.
        """
        self._parts.clear()
        b, t = self._batch
        later = b * (t - 1)  # the last timestep of a sequence has no target
        self._world_model()
        if self._planning and self._has_value:
            self._mlp("value", "value", 1, b * t + 2 * later, b * t + later)
        if not self._planning:
            self._imagination("actor", self._config.actor.gradient == "dynamics")
        if self._config.disagreement.until:
            self._ensemble("ensemble", 3 * later, 2 * later)
            self._imagination("explorer", through=True)
        return dict(self._parts)

    def policy(self) -> dict[str, int]:
        """Returns the operations that choose one action for each of the config's environments."""
        self._parts.clear()
        n, planner = self._config.envs.num_envs, self._config.planner
        self._encoder(n, n)
        self._step("rssm", n, n, n, prior=False)
        self._posterior(n, n)
        if not self._planning:
            self._mlp("actor", "actor", self._outputs, n)
            return dict(self._parts)
        planned = n * planner.iterations * planner.candidates * planner.horizon
        self._step("planned dynamics", planned, planned, planned)
        for name in [*self._heads, "value"] if self._has_value else self._heads:
            self._mlp(f"planned {name}", name, 1, planned)
        return dict(self._parts)

    def _add(self, part: str, passes: int, *macs: int) -> None:
        """Adds layers of so many multiply-adds per pass to a part."""
        if total := 2 * sum(macs) * passes:
            self._parts[part] += total

    def _dense(self, part: str, sizes: Sequence[int], passes: int, first: int) -> None:
        """Adds dense layers, given the widths of the input and of each layer.

        The first layer has `first` passes, because its inputs often need no gradient.
        """
        macs = [inputs * outputs for inputs, outputs in pairwise(sizes)]
        self._add(part, first, *macs[:1])
        self._add(part, passes, *macs[1:])

    def _mlp(
        self, part: str, section: str, outputs: int, passes: int, first: int | None = None,
        inputs: int | None = None,
    ) -> None:  # fmt: skip
        """Adds a head with the hidden layers of a config section; its inputs default to F."""
        head = getattr(self._config, section)
        sizes = [self._feat if inputs is None else inputs, *[head.units] * head.layers, outputs]
        self._dense(part, sizes, passes, passes if first is None else first)

    def _ensemble(self, part: str, passes: int, first: int) -> None:
        members, inputs = self._config.disagreement.members, self._feat + self._actions
        self._mlp(part, "disagreement", self._stoch, members * passes, members * first, inputs)

    def _world_model(self) -> None:
        b, t = self._batch
        n, later = b * t, b * (t - 1)  # the zero state before the first step needs no gradient
        self._encoder(3 * n, 2 * n)
        self._step("rssm", 2 * n, 2 * n + later, 3 * n)
        # With a deterministic latent no loss reads the last posterior: the heads read priors.
        self._posterior(3 * n, n + 2 * later)
        loss = self._config.loss
        ahead = sum(b * (t - d + 1) for d in range(2, loss.overshooting + 1))
        self._step("overshooting", 2 * ahead, 3 * ahead, 3 * ahead)
        # Otherwise the decoder is a diagnostic that reads features behind a stop_gradient.
        self._decoder(3 * n, 3 * n if loss.representation == "reconstruction" else 2 * n)
        if loss.representation == "contrastive":
            outputs = 2 * self._feat
            self._mlp("contrastive", "contrastive", outputs, 3 * n, inputs=self._embed)
            # Squared distances between all states and observations (dreamer.ops.contrast).
            self._add("contrastive", 3 * n, outputs * n)
        for name in self._heads:
            self._mlp(name, name, 1, 3 * n)

    def _encoder(self, passes: int, first: int) -> None:
        channels, vectors = self._encoded
        encoder = self._config.encoder
        if channels:
            sizes = [channels, *(encoder.cnn_depth * 2**i for i in range(4))]
            for i, side in enumerate((64, 31, 14, 6)):
                macs = convolution_macs(side, 4, 2, sizes[i], sizes[i + 1])
                self._add("encoder", passes if i else first, macs)
        if vectors:
            sizes = [vectors, *[encoder.mlp_units] * encoder.mlp_layers]
            self._dense("encoder", sizes, passes, first)

    def _decoder(self, passes: int, first: int) -> None:
        channels, vectors = self._decoded
        decoder = self._config.decoder
        if channels:
            depth = decoder.cnn_depth
            self._add("decoder", first, self._feat * 32 * depth)
            sizes = [32 * depth, 4 * depth, 2 * depth, depth, channels]
            for i, (side, kernel) in enumerate(((1, 5), (5, 5), (13, 6), (30, 6))):
                self._add("decoder", passes, transposed_macs(side, kernel, sizes[i], sizes[i + 1]))
        if vectors:
            sizes = [self._feat, *[decoder.mlp_units] * decoder.mlp_layers, vectors]
            self._dense("decoder", sizes, passes, first)

    def _step(self, part: str, action: int, state: int, rest: int, prior: bool = True) -> None:
        """Adds the transition: passes of what reads actions, states, and all else."""
        s, d, hidden = self._stoch, self._deter, self._config.rssm.hidden
        self._add(part, action, self._actions * hidden)
        self._add(part, state, s * hidden, d * 3 * d)  # of the input layer, of the GRU
        self._add(part, rest, hidden * 3 * d)
        if s and prior:
            self._add(part, rest, (d or hidden) * hidden, hidden * 2 * s)

    def _posterior(self, passes: int, deterministic: int) -> None:
        s, d, hidden = self._stoch, self._deter, self._config.rssm.hidden
        if s:
            self._add("rssm", passes, ((d or hidden) + self._embed) * hidden, hidden * 2 * s)
        else:  # a second GRU reads the embedding
            self._add("rssm", deterministic, self._embed * hidden, hidden * 3 * d, d * 3 * d)

    def _imagination(self, actor: str, through: bool) -> None:
        """Adds the layers of learning an actor, and its value network if there is one.

        Args:
            actor: "actor", or "explorer", which the ensemble rewards instead of the reward head.
            through: Whether the actor's gradient passes through the dynamics.
        """
        horizon, starts = self._config.behavior.horizon, self._batch[0] * self._batch[1]  # H, N
        n, later = starts * horizon, starts * (horizon - 1)
        # Whether the value of the starting state is used (dreamer.agent.behavior.Behavior).
        from_start = self._has_value and (not through or horizon == 1)
        judged = n + starts if from_start else n
        rewarded = later if self._has_value else n
        self._mlp(actor, "actor", self._outputs, 3 * n, 2 * n)
        action = n + through * n
        self._step("imagined dynamics", action, n + through * later, action)
        if "discount" in self._heads:
            self._mlp("imagined discount", "discount", 1, judged + through * later)
        if actor == "explorer":
            self._ensemble("imagined ensemble", n + rewarded, n + rewarded)
        else:
            self._mlp("imagined reward", "reward", 1, judged + through * rewarded)
        if self._has_value:
            moved = through * (starts if horizon == 1 else later)
            own = n if from_start else later
            first = judged + moved + own
            self._mlp("imagined value", "value", 1, first + own, first)


def _channels_and_vectors(obs_space: Mapping[str, Space], keys: str) -> tuple[int, int]:
    """Returns the channels of all images and the size of all vectors whose keys match."""
    found = [space.shape for key, space in obs_space.items() if re.fullmatch(keys, key)]
    channels = sum(shape[-1] for shape in found if len(shape) == 3)
    return channels, sum(shape[0] for shape in found if len(shape) == 1)
