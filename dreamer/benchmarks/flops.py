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
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from dreamer.config.config import Config
from dreamer.envs.spec import Space
from dreamer.nets.convolutions import DECODERS, ENCODERS
from dreamer.training.schedule import UpdateSchedule


def dense_macs(*sizes: int) -> list[int]:
    """Returns the multiply-adds of dense layers, given the widths of the input and each layer."""
    return [inputs * outputs for inputs, outputs in pairwise(sizes)]


def convolution_macs(side: int, kernel: int, channels: int, filters: int) -> int:
    """Returns the multiply-adds of a convolution to an image of `side` x `side` pixels."""
    return side**2 * kernel**2 * channels * filters


def transposed_macs(side: int, kernel: int, channels: int, filters: int) -> int:
    """Returns the multiply-adds of a transposed convolution: each pixel meets the whole kernel."""
    return side**2 * kernel**2 * channels * filters


def run_flops(config: Config) -> float:
    """Returns approximately the operations of a whole run of Dreamer, before its spaces are known.

    It counts 64x64x3 images, if the config has images, else 24 numbers; and 6 actions.
    """
    shape = (64, 64, 3) if config.envs.image else (24,)
    counter = FlopCounter(
        config, {"observation": Space(shape, np.dtype(np.float32))},
        Space((6,), np.dtype(np.float32)),
    )  # fmt: skip
    train = config.train
    schedule = UpdateSchedule(train.prefill, train.pretrain, train.every, train.updates)
    actions = config.steps / config.envs.action_repeat / config.envs.num_envs
    updates = schedule.due(config.steps) * float(sum(counter.update().values()))
    return updates + actions * sum(counter.policy().values())


class FlopCounter:
    """Counts the operations of the networks that a config describes.

    Observations are images [64, 64, C] and vectors [size].
    """

    def __init__(self, config: Config, obs_space: Mapping[str, Space], act_space: Space) -> None:
        self._config, self._actions = config, act_space.shape[0]  # A
        self._outputs = self._actions * (1 if act_space.discrete else 2)  # of the actor
        self._encoded = _channels_and_vectors(obs_space, config.encoder.keys)
        self._decoded = _channels_and_vectors(obs_space, config.decoder.keys)
        channels, vectors = self._encoded
        encoder = config.encoder
        # E: the last convolution's output, and that of the vectors' MLP.
        self._embed = ENCODERS[encoder.cnn].size(encoder.cnn_depth) if channels else 0
        self._embed += encoder.mlp_units if vectors and encoder.mlp_layers else vectors
        rssm = config.rssm
        size = rssm.stoch * (rssm.classes or 1)
        self._stoch = size if rssm.kind != "deterministic_only" else 0  # S
        self._stats = self._stoch * (1 if rssm.classes else 2)  # width of prior and posterior
        self._deter = rssm.deter if rssm.kind != "stochastic_only" else 0  # D
        self._feat = self._stoch + self._deter  # F
        self._batch = config.train.batch_size, config.train.batch_length  # B, T
        self._planning = config.behavior.policy == "planner"
        lambda_plans = config.planner.returns == "lambda"
        self._has_value = lambda_plans if self._planning else bool(config.behavior.value)
        self._heads = ["reward", "discount"] if config.discount.enabled else ["reward"]
        self._parts: Counter[str] = Counter()

    def update(self) -> dict[str, int]:
        """Returns the operations of one update, by network, such as "imagined dynamics"."""
        self._parts.clear()
        b, t = self._batch
        later = b * (t - 1)  # the last timestep of a sequence has no target
        self._world_model()
        if self._planning and self._has_value:
            self._layers("value", self._head("value"), b * t + 2 * later, b * t + later)
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
            self._layers("actor", self._head("actor", self._outputs), n)
            return dict(self._parts)
        planned = n * planner.iterations * planner.candidates * planner.horizon
        self._step("planned dynamics", planned, planned, planned)
        for name in [*self._heads, "value"] if self._has_value else self._heads:
            self._layers(f"planned {name}", self._head(name), planned)
        return dict(self._parts)

    def _add(self, part: str, passes: int, *macs: int) -> None:
        """Adds `passes` passes over layers of `macs` multiply-adds each to a part."""
        if total := 2 * sum(macs) * passes:
            self._parts[part] += total

    def _layers(self, part: str, macs: list[int], passes: int, first: int | None = None) -> None:
        """Adds layers; the inputs of the first, with `first` passes, often need no gradient."""
        self._add(part, passes if first is None else first, *macs[:1])
        self._add(part, passes, *macs[1:])

    def _head(self, section: str, outputs: int = 0, inputs: int | None = None) -> list[int]:
        """Returns the layers of a head with a section's hidden layers; its inputs default to F.

        Its outputs default to its bins, or to one number.
        """
        head = self._config.section(section)
        hidden = [head["units"]] * head["layers"]
        outputs = outputs or head.get("bins") or 1
        return dense_macs(self._feat if inputs is None else inputs, *hidden, outputs)

    def _ensemble(self, part: str, passes: int, first: int) -> None:
        layers = self._head("disagreement", self._stoch, self._feat + self._actions)
        members = self._config.disagreement.members
        self._layers(part, layers, members * passes, members * first)

    def _world_model(self) -> None:
        b, t = self._batch
        n, later = b * t, b * (t - 1)  # the zero state before the first step needs no gradient
        self._encoder(3 * n, 2 * n)
        self._step("rssm", 2 * n, 2 * n + later, 3 * n)
        # With a deterministic latent no loss reads the last posterior: the heads read priors.
        self._posterior(3 * n, n + 2 * later)
        loss = self._config.loss
        ahead = sum(b * (t - d + 1) for d in range(2, min(loss.overshooting, t) + 1))
        self._step("overshooting", 2 * ahead, 3 * ahead, 3 * ahead)
        # Without reconstruction the decoder reads features behind a stop_gradient.
        self._decoder(3 * n, 3 * n if loss.representation == "reconstruction" else 2 * n)
        if loss.representation == "contrastive":
            outputs = 2 * self._feat
            head = self._head("contrastive", outputs, self._embed)
            # outputs * n: squared distances of all states and observations (dreamer.ops.contrast).
            self._layers("contrastive", [*head, outputs * n], 3 * n)
        for name in self._heads:
            self._layers(name, self._head(name), 3 * n)

    def _encoder(self, passes: int, first: int) -> None:
        (channels, vectors), encoder = self._encoded, self._config.encoder
        if channels:
            stack, side = ENCODERS[encoder.cnn], 64
            sizes, macs = [channels, *(encoder.cnn_depth * n for n in stack.multiples)], []
            for depths in pairwise(sizes):
                side = side // 2 if stack.padding == "same" else (side - stack.kernel) // 2 + 1
                macs.append(convolution_macs(side, stack.kernel, *depths))
            self._layers("encoder", macs, passes, first)
        if vectors:
            macs = dense_macs(vectors, *[encoder.mlp_units] * encoder.mlp_layers)
            self._layers("encoder", macs, passes, first)

    def _decoder(self, passes: int, first: int) -> None:
        (channels, vectors), decoder = self._decoded, self._config.decoder
        if channels:
            stack, depth = DECODERS[decoder.cnn], decoder.cnn_depth
            side, sizes = stack.side, [depth * n for n in (stack.multiple, *stack.multiples)]
            macs = [self._feat * side**2 * sizes[0]]
            for kernel, depths in zip(stack.kernels, pairwise([*sizes, channels]), strict=True):
                macs.append(transposed_macs(side, kernel, *depths))
                side = 2 * side + (0 if stack.padding == "same" else kernel - 2)
            self._layers("decoder", macs, passes, first)
        if vectors:
            hidden = [decoder.mlp_units] * decoder.mlp_layers
            self._layers("decoder", dense_macs(self._feat, *hidden, vectors), passes, first)

    def _step(self, part: str, action: int, state: int, rest: int, prior: bool = True) -> None:
        """Adds the transition, with the passes of layers on actions, on states, and the rest."""
        s, d, hidden = self._stoch, self._deter, self._config.rssm.hidden
        self._add(part, action, self._actions * hidden)
        if blocks := self._config.rssm.blocks:
            self._add(part, state, s * hidden, d * hidden, d * d // blocks)
            self._add(part, rest, 3 * hidden * d, d * 3 * d // blocks)
        else:
            self._add(part, state, s * hidden, d * 3 * d)  # of the input layer, of the GRU
            self._add(part, rest, hidden * 3 * d)
        if s and prior:
            layers = [hidden] * self._config.rssm.prior_layers
            self._add(part, rest, *dense_macs(d or hidden, *layers, self._stats))

    def _posterior(self, passes: int, deterministic: int) -> None:
        s, d, hidden = self._stoch, self._deter, self._config.rssm.hidden
        if s:
            self._add("rssm", passes, ((d or hidden) + self._embed) * hidden, hidden * self._stats)
        else:  # a second GRU reads the embedding
            self._add("rssm", deterministic, self._embed * hidden, hidden * 3 * d, d * 3 * d)

    def _imagination(self, actor: str, through: bool) -> None:
        """Adds the layers of learning an actor, and its value network if there is one.

        The ensemble rewards the "explorer" instead of the reward head. `through` says whether the
        actor's gradient passes through the dynamics.
        """
        horizon, states = self._config.behavior.horizon, self._batch[0] * self._batch[1]  # H, B*T
        starts = min(self._config.behavior.starts or states, states)  # N
        n, later, value = starts * horizon, starts * (horizon - 1), self._config.value
        # Whether the value of the starting state is used (dreamer.agent.behavior.Behavior).
        from_start = self._has_value and (not through or horizon == 1)
        judged = n + starts if from_start else n
        rewarded = later if self._has_value else n
        self._layers(actor, self._head("actor", self._outputs), 3 * n, 2 * n)
        action = n + through * n
        self._step("imagined dynamics", action, n + through * later, action)
        if "discount" in self._heads:
            self._layers("imagined discount", self._head("discount"), judged + through * later)
        if actor == "explorer":
            self._ensemble("imagined ensemble", n + rewarded, n + rewarded)
        else:
            self._layers("imagined reward", self._head("reward"), judged + through * rewarded)
        if self._has_value:
            moved = through * (starts if horizon == 1 else later)
            own = n if from_start else later
            slow = "" if actor == "explorer" or not value.slow_rate else value.slow_role
            if slow:
                passes = judged + moved if slow == "target" else own
                self._layers("imagined slow value", self._head("value"), passes)
            first = judged + moved * (slow != "target") + own
            self._layers("imagined value", self._head("value"), first + own, first)
            if actor != "explorer" and value.replay_scale:
                self._replayed_value(starts, from_start, slow == "pull")

    def _replayed_value(self, starts: int, from_start: bool, pull: bool) -> None:
        """Adds the value loss on replayed sequences."""
        (b, t), head = self._batch, self._head("value")
        if not from_start:
            for name in self._heads:
                self._layers(f"imagined {name}", self._head(name), starts)
        passes = 3 * b * (t - 1) + pull * b * (t - 1)
        self._layers("replayed value", head, passes + (b * t if starts < b * t else 0))


def _channels_and_vectors(obs_space: Mapping[str, Space], keys: str) -> tuple[int, int]:
    """Returns the channels of all images and the size of all vectors whose keys match."""
    found = [space.shape for key, space in obs_space.items() if re.fullmatch(keys, key)]
    channels = sum(shape[-1] for shape in found if len(shape) == 3)
    return channels, sum(shape[0] for shape in found if len(shape) == 1)
