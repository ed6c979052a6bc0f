"""Representation losses by name: what makes latent states describe the observations.

To add one, write a Keras layer with the interface of `Representation`, and register it:

    register_representation("my_loss", MyLoss)

Then ``loss.representation: my_loss`` chooses it, and the config's section ``my_loss``, if there is
one, gives its keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import keras
import tensorflow as tf

from dreamer.errors import UserError
from dreamer.nets.contrastive import Contrastive
from dreamer.nets.layer_style import LayerStyle


class Representation(Protocol):
    """The part of the world model's loss that depends on the choice of loss.representation.

    It is a Keras layer; its variables learn with the world model. It is made with F, the keyword
    arguments of a Keras layer, and those of the config's section.

    Attributes:
        reconstructs: Whether the decoder's likelihood trains the latent states too. If not, the
            decoder is a diagnostic: no gradient leaves it.
    """

    reconstructs: ClassVar[bool]

    @property
    def variables(self) -> list:
        """All variables; [] until `build`."""
        raise NotImplementedError

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the variables, for embeddings [N, E]."""

    def losses(self, embed: tf.Tensor, feat: tf.Tensor) -> dict[str, tf.Tensor]:
        """Further terms of the model's loss: scalars by name. The names become metrics.

        Args:
            embed: Embeddings of the observations, [B, T, E].
            feat: Features of the latent states that must explain `embed`, float32 [B, T, F].
        """
        raise NotImplementedError


class RewardOnly(keras.layers.Layer):
    """No loss: rewards alone shape the latent states (arXiv 1912.01603, figure 8)."""

    reconstructs: ClassVar[bool] = False

    def __init__(self, feat_size: int, **kwargs):
        del feat_size
        super().__init__(**kwargs)

    def losses(self, embed: tf.Tensor, feat: tf.Tensor) -> dict[str, tf.Tensor]:
        """No terms."""
        del embed, feat
        return {}


class Reconstruction(RewardOnly):
    """The decoder's likelihood of the observations, and no further terms (equation 10)."""

    reconstructs: ClassVar[bool] = True


_FACTORIES: dict[str, Callable[..., Representation]] = {
    "reconstruction": Reconstruction,
    "contrastive": Contrastive,
    "reward_only": RewardOnly,
}


def register_representation(name: str, factory: Callable[..., Representation]) -> None:
    """Registers a representation loss under a name, in place of an earlier one of that name."""
    _FACTORIES[name] = factory


def make_representation(
    name: str, feat_size: int, settings: Mapping[str, Any], dtype: keras.DTypePolicy,
    style: LayerStyle,
) -> Representation:  # fmt: skip
    """The representation loss that is registered under a name, for features of size F.

    The contrastive head's hidden layers have the style; layers of the user's own have theirs.

    Raises:
        UserError: No such name is registered.
    """
    if name not in _FACTORIES:
        raise UserError(f"loss.representation is {name!r}; registered are {', '.join(_FACTORIES)}")
    factory = _FACTORIES[name]
    styled = {"style": style} if factory is Contrastive else {}
    return factory(feat_size, **settings, **styled, dtype=dtype, name=name)
