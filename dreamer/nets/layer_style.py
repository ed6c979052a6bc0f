"""What makes a hidden layer besides its affine map: norm, activation, initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

_EPSILON = {"rms": 1e-4, "layer": 1e-3}  # DreamerV3's, and Keras's, which DreamerV2 uses


@dataclass(frozen=True)
class LayerStyle:
    """How the hidden layers of all networks are made: activation(norm(x W + b)).

    Attributes:
        activation: "auto", which is ELU in dense layers and ReLU in convolutions (DreamerV1), or
            the name of one of Keras's activations for both.
        norm: "none", "layer" or "rms", over a layer's units, or a convolution's channels.
        init: Distribution of initial weights: "glorot", uniform; or "trunc_normal", a truncated
            normal of variance 1 / inputs (DreamerV3).
    """

    activation: str = "auto"
    norm: str = "none"
    init: str = "glorot"

    def initializer(
        self, scale: float = 1.0, inputs: Sequence[int] = (), outputs: Sequence[int] = ()
    ) -> str | keras.initializers.Initializer:
        """The distribution of a kernel's initial values.

        Args:
            scale: Factor of the values. 0: they are zeros.
            inputs, outputs: The kernel's axes that make an output's number of inputs, and an
                input's number of outputs. Empty: those of Keras's dense layers and convolutions.
        """
        if scale == 0.0:
            return "zeros"
        if (self.init, scale, inputs) == ("glorot", 1.0, ()):
            return "glorot_uniform"
        kind = ("fan_avg", "uniform") if self.init == "glorot" else ("fan_in", "truncated_normal")
        axes = {"input_axes": inputs, "output_axes": outputs} if inputs else {}
        return keras.initializers.VarianceScaling(scale**2, *kind, **axes)


PUBLISHED = LayerStyle()  # DreamerV1's


class NormActivation(keras.layers.Layer):
    """What follows the affine map of a hidden layer: activation(norm(x)).

    The norm computes in float32 in every precision, its gradients too. Keras's norms compute in
    float32 by themselves, but cast the scale to the compute dtype.

    Args:
        style: Says which norm and which activation.
        default: The activation where the style leaves it at "auto".

    Input shape: [..., units]. Output shape: the same, in the compute dtype.
    """

    def __init__(self, style: LayerStyle, default: str, **kwargs: Any):
        super().__init__(**kwargs)
        name = default if style.activation == "auto" else style.activation
        self._activation = keras.activations.get(name)
        self._norm = None if style.norm == "none" else make_norm(style.norm, "norm")

    def build(self, input_shape):
        if self._norm is not None:
            self._norm.build(input_shape)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if self._norm is not None:
            inputs = tf.cast(self._norm(tf.cast(inputs, tf.float32)), self.compute_dtype)
        return self._activation(inputs)


def make_norm(kind: str, name: str) -> keras.layers.Layer:
    """The norm "layer", with a learnt scale and offset, or "rms", with a learnt scale.

    It is over the last axis, in float32.
    """
    kinds = {"layer": keras.layers.LayerNormalization, "rms": keras.layers.RMSNormalization}
    return kinds[kind](epsilon=_EPSILON[kind], dtype="float32", name=name)
