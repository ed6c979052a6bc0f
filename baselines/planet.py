"""PlaNet (Hafner et al., arXiv 1811.04551) with its own settings: a world model and a planner.

World model and planner are Dreamer's (`python -m dreamer.run --configs planet` runs them with
Dreamer's settings). Here they have PlaNet's: action repeats by task, its optimiser and sizes, and
images of five bits with uniform noise. Latent overshooting is off, as in its paper's final agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from dreamer.agent.agent import Agent, make_dreamer
from dreamer.agent.world_model import Tensors, WorldModel
from dreamer.config.config import Config
from dreamer.envs.spec import Space

BINS = 32  # five bits


class FiveBitModel(WorldModel):
    """A world model of images whose channels have five bits (arXiv 1811.04551, appendix A).

    Uniform noise over a bin, new in each update, makes the images' density continuous. Acting and
    predicting take the middle of each bin (PlaNet draws noise there too).
    """

    def preprocess(self, obs: Mapping[str, tf.Tensor]) -> Tensors:
        """uint8 images to the middle of one of 32 bins in [-0.5, 0.5]; the rest to float32."""
        images = {k: v for k, v in obs.items() if v.dtype == tf.uint8}
        others = super().preprocess({k: v for k, v in obs.items() if k not in images})
        return {**others, **{k: quantise(v) + 0.5 / BINS for k, v in images.items()}}

    @property
    def noise_size(self) -> int:
        """At least 1, unlike WorldModel's, because the images' noise is seeded by this noise."""
        return max(super().noise_size, 1)

    def loss(self, batch: Mapping[str, tf.Tensor], noise: tf.Tensor):
        """Returns WorldModel.loss on images with noise."""
        noisy, seed = dict(batch), tf.bitcast(tf.reshape(noise, [-1])[:2], tf.int32)
        for number, (key, value) in enumerate(sorted(batch.items())):
            if value.dtype == tf.uint8:
                # The noise follows from seed and update, so it can seed the images' noise.
                own = tf.random.experimental.stateless_fold_in(seed, number)
                noisy[key] = quantise(value) + tf.random.stateless_uniform(
                    value.shape, own, maxval=1.0 / BINS
                )
        return super().loss(noisy, noise[..., : super().noise_size])


def quantise(image: tf.Tensor) -> tf.Tensor:
    """uint8 [...] -> the lower ends of 32 equal bins of [-0.5, 0.5], float32."""
    return tf.floor(tf.cast(image, tf.float32) / (256 // BINS)) / BINS - 0.5


def make(config: Config, obs_space: Mapping[str, Space], act_space: Space) -> Agent:
    """The agent that a config describes; keys that it lacks have Dreamer's values."""
    dreamers, own = Config({}).agent_sections(), config.agent_sections()
    sections: dict[str, Any] = {name: dreamers[name] | own.get(name, {}) for name in dreamers}
    sections["behavior"] |= {"policy": "planner", "value": False}
    return make_dreamer(
        obs_space, act_space, sections, precision=config.precision,
        jit=config.jit, seed=config.seed, model_class=FiveBitModel,
    )  # fmt: skip
