"""Floating-point operations of one update and of one action, counted from layer shapes.

The count covers matrix products and convolutions, forward and backward, at two operations per
multiply-add. It leaves out elementwise work (activations, losses, Adam), which is below 1 %.

A layer runs its multiply-adds up to three times per row: forward, for the gradient with respect to
its inputs, and for the gradient with respect to its weights. The count includes a gradient only
where learning needs it:

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from dreamer.config.config import Config
from dreamer.envs.spec import Space


class Rows(NamedTuple):
    """How many rows (images or states) each of a layer's three passes has.

    Attributes:
        forward: Rows of the forward pass.
        inputs: Rows that need the gradient with respect to the layer's inputs.
        weights: Rows that contribute to the gradient of the layer's weights.
    """

    forward: int
    inputs: int = 0
    weights: int = 0


class Layer(NamedTuple):
    """One matrix product or convolution.

    Attributes:
        part: Name of the network, such as "encoder" or "imagined dynamics".
        name: Name of the layer within the network.
        macs: Multiply-adds per row.
        rows: Number of rows of each pass.
    """

    part: str
    name: str
    macs: int
    rows: Rows

    @property
    def flops(self) -> int:
        """Operations of this layer."""
        return 2 * self.macs * sum(self.rows)


def flops_by_part(layers: Iterable[Layer]) -> dict[str, int]:
    """Returns the operations of each part, in the order of the layers."""
    parts: dict[str, int] = {}
    for layer in layers:
        parts[layer.part] = parts.get(layer.part, 0) + layer.flops
    return parts


def convolution_macs(side: int, kernel: int, stride: int, channels: int, filters: int) -> int:
    """Returns the multiply-adds of a valid convolution over an image of `side` x `side` pixels."""
    outputs = (side - kernel) // stride + 1
    return outputs**2 * kernel**2 * channels * filters


def transposed_macs(side: int, kernel: int, channels: int, filters: int) -> int:
    """Returns the multiply-adds of a transposed convolution: each pixel meets the whole kernel."""
    return side**2 * kernel**2 * channels * filters


def dense_layers(
    part: str, sizes: Sequence[int], rows: Rows, first_inputs: int | None = None, copies: int = 1
) -> Iterator[Layer]:
    """Yields a stack of dense layers.

    Args:
        part: Name of the network.
        sizes: Width of the input, then of each layer.
        rows: Row counts of each layer.
        first_inputs: Replaces `rows.inputs` of the first layer.
        copies: Number of equal stacks that run side by side.
    """
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        own = rows
        if i == 0 and first_inputs is not None:
            own = rows._replace(inputs=first_inputs)
        yield Layer(part, f"dense {i + 1}", copies * inputs * outputs, own)


class LayerTable:
    """The layers of the networks that a config describes.

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
        self._stoch = config.rssm.stoch if config.rssm.kind != "deterministic_only" else 0  # S
        self._deter = config.rssm.deter if config.rssm.kind != "stochastic_only" else 0  # D
        self._feat = self._stoch + self._deter  # F
        self._batch = config.train.batch_size, config.train.batch_length  # B, T
        self._planning = config.behavior.policy == "planner"
        lambda_plans = config.planner.returns == "lambda"
        self._has_value = lambda_plans if self._planning else bool(config.behavior.value)
        self._heads = ["reward", "discount"] if config.discount.enabled else ["reward"]

    def update_layers(self) -> list[Layer]:
        """Returns the layers of one update, the exploration's included if it is configured."""
        b, t = self._batch
        layers = [*self._world_model()]
        if self._planning:
            if self._has_value:
                # The last timestep of a sequence has no target.
                later = b * (t - 1)
                layers += self._mlp("value", "value", 1, Rows(b * t, later, later), 0)
            return layers
        layers += self._imagination("actor", self._config.actor.gradient == "dynamics")
        if self._config.disagreement.until:
            n = b * (t - 1)
            layers += self._ensemble("ensemble", Rows(n, n, n), first_inputs=0)
            layers += self._imagination("explorer", through=True)
        return layers

    def policy_layers(self) -> list[Layer]:
        """Returns the layers that choose one action for each of the config's environments."""
        n = Rows(self._config.envs.num_envs)
        layers = [*self._encoder(n), *self._step("rssm", n, n, n, prior=False)]
        layers += self._posterior(n, n)
        if not self._planning:
            return [*layers, *self._mlp("actor", "actor", self._outputs, n)]
        planner = self._config.planner
        planned = Rows(n.forward * planner.iterations * planner.candidates * planner.horizon)
        layers += self._step("planned dynamics", planned, planned, planned)
        for name in [*self._heads, "value"] if self._has_value else self._heads:
            layers += self._mlp(f"planned {name}", name, 1, planned)
        return layers

    def _mlp(
        self, part: str, section: str, outputs: int, rows: Rows, first_inputs: int | None = None,
        inputs: int | None = None, copies: int = 1,
    ) -> Iterator[Layer]:  # fmt: skip
        """Yields a head with the hidden layers of a config section; its inputs default to F."""
        head = getattr(self._config, section)
        sizes = [self._feat if inputs is None else inputs, *[head.units] * head.layers, outputs]
        yield from dense_layers(part, sizes, rows, first_inputs, copies)

    def _world_model(self) -> Iterator[Layer]:
        b, t = self._batch
        n, later = b * t, b * (t - 1)  # the zero state before the first step needs no gradient
        every = Rows(n, n, n)
        yield from self._encoder(every)
        yield from self._step("rssm", Rows(n, 0, n), Rows(n, later, n), every)
        # With a deterministic latent no loss reads the last posterior: the heads read priors.
        yield from self._posterior(every, Rows(n, later, later))
        loss = self._config.loss
        if ahead := sum(b * (t - d + 1) for d in range(2, loss.overshooting + 1)):
            rows = Rows(ahead, ahead, ahead)
            yield from self._step("overshooting", Rows(ahead, 0, ahead), rows, rows)
        # Otherwise the decoder is a diagnostic that reads features behind a stop_gradient.
        reconstructs = loss.representation == "reconstruction"
        yield from self._decoder(every, n if reconstructs else 0)
        if loss.representation == "contrastive":
            embed = self._embed_size()
            yield from self._mlp("contrastive", "contrastive", 2 * self._feat, every, inputs=embed)
            # Squared distances between all states and observations (dreamer.ops.contrast).
            yield Layer("contrastive", "pairs", 2 * self._feat * n, every)
        for name in self._heads:
            yield from self._mlp(name, name, 1, every)

    def _embed_size(self) -> int:
        """E: 2 x 2 pixels of 8 * depth channels, and the output of the vectors' MLP."""
        channels, vectors = self._encoded
        encoder = self._config.encoder
        vector_size = encoder.mlp_units if vectors and encoder.mlp_layers else vectors
        return (32 * encoder.cnn_depth if channels else 0) + vector_size

    def _encoder(self, rows: Rows) -> Iterator[Layer]:
        channels, vectors = self._encoded
        encoder = self._config.encoder
        if channels:
            sizes = [channels, *(encoder.cnn_depth * 2**i for i in range(4))]
            for i, side in enumerate((64, 31, 14, 6)):
                macs = convolution_macs(side, 4, 2, sizes[i], sizes[i + 1])
                own = rows if i else rows._replace(inputs=0)
                yield Layer("encoder", f"convolution {i + 1}", macs, own)
        if vectors:
            sizes = [vectors, *[encoder.mlp_units] * encoder.mlp_layers]
            yield from dense_layers("encoder", sizes, rows, 0)

    def _decoder(self, rows: Rows, first_inputs: int) -> Iterator[Layer]:
        channels, vectors = self._decoded
        decoder = self._config.decoder
        if channels:
            depth = decoder.cnn_depth
            yield from dense_layers("decoder", [self._feat, 32 * depth], rows, first_inputs)
            sizes = [32 * depth, 4 * depth, 2 * depth, depth, channels]
            for i, (side, kernel) in enumerate(((1, 5), (5, 5), (13, 6), (30, 6))):
                macs = transposed_macs(side, kernel, sizes[i], sizes[i + 1])
                yield Layer("decoder", f"transposed convolution {i + 1}", macs, rows)
        if vectors:
            sizes = [self._feat, *[decoder.mlp_units] * decoder.mlp_layers, vectors]
            yield from dense_layers("decoder", sizes, rows, first_inputs)

    def _step(
        self, part: str, action: Rows, state: Rows, rest: Rows, *, prior: bool = True
    ) -> Iterator[Layer]:
        """Yields the layers of the transition: what reads actions, states, and all else."""
        s, d, hidden = self._stoch, self._deter, self._config.rssm.hidden
        if s:
            yield Layer(part, "input, stoch", s * hidden, state)
        yield Layer(part, "input, action", self._actions * hidden, action)
        if d:
            yield Layer(part, "gru, input", hidden * 3 * d, rest)
            yield Layer(part, "gru, recurrent", d * 3 * d, state)
        if s and prior:
            yield Layer(part, "prior hidden", (d or hidden) * hidden, rest)
            yield Layer(part, "prior mean and std", hidden * 2 * s, rest)

    def _posterior(self, rows: Rows, deterministic_rows: Rows) -> Iterator[Layer]:
        s, d, hidden = self._stoch, self._deter, self._config.rssm.hidden
        embed = self._embed_size()
        if s:
            yield Layer("rssm", "post hidden", ((d or hidden) + embed) * hidden, rows)
            yield Layer("rssm", "post mean and std", hidden * 2 * s, rows)
        else:
            yield Layer("rssm", "post hidden", embed * hidden, deterministic_rows)
            yield Layer("rssm", "post gru, input", hidden * 3 * d, deterministic_rows)
            yield Layer("rssm", "post gru, recurrent", d * 3 * d, deterministic_rows)

    def _imagination(self, actor: str, through: bool) -> Iterator[Layer]:
        """Yields the layers of learning an actor, and its value network if there is one.

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
        yield from self._mlp(actor, "actor", self._outputs, Rows(n, n, n), 0)
        action = Rows(n, through * n)
        yield from self._step("imagined dynamics", action, Rows(n, through * later), action)
        for name in self._heads:
            if name == "reward" and actor == "explorer":
                continue
            back = through * (rewarded if name == "reward" else later)
            yield from self._mlp(f"imagined {name}", name, 1, Rows(judged, back))
        if actor == "explorer":
            yield from self._ensemble("imagined ensemble", Rows(n, rewarded))
        if self._has_value:
            moved = through * (starts if horizon == 1 else later)
            own = n if from_start else later
            rows = Rows(judged, moved + own, own)
            yield from self._mlp("imagined value", "value", 1, rows, moved)

    def _ensemble(
        self, part: str, rows: Rows, first_inputs: int | None = None
    ) -> Iterator[Layer]:
        inputs, members = self._feat + self._actions, self._config.disagreement.members
        yield from self._mlp(
            part, "disagreement", self._stoch, rows, first_inputs, inputs, members
        )


def _channels_and_vectors(obs_space: Mapping[str, Space], keys: str) -> tuple[int, int]:
    """Returns the channels of all images and the size of all vectors whose keys match."""
    found = [space.shape for key, space in obs_space.items() if re.fullmatch(keys, key)]
    channels = sum(shape[-1] for shape in found if len(shape) == 3)
    return channels, sum(shape[0] for shape in found if len(shape) == 1)
