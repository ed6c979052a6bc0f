"""The ensemble against NumPy, and its disagreement where data is and where none is."""

import keras
import numpy as np

from dreamer.nets.ensemble import Ensemble


def make_ensemble(inputs: int = 2, seed: int = 0, **overrides) -> Ensemble:
    keras.utils.set_random_seed(seed)
    sizes = {"members": 4, "layers": 2, "units": 16, "outputs": 3, **overrides}
    ensemble = Ensemble(**sizes)
    ensemble.build((None, inputs))
    return ensemble


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_members_start_apart_and_see_the_same():
    means = make_ensemble()(numbers(5, 2)).numpy()
    assert means.shape == (4, 5, 3)
    for one in range(4):
        for other in range(one):
            assert (np.abs(means[one] - means[other]) > 1e-6).all()


def test_disagreement_is_the_literal_variance():
    ensemble, inputs = make_ensemble(), numbers(5, 2)
    means = np.float64(ensemble(inputs))
    expected = [
        np.mean([np.mean((means[:, n, o] - means[:, n, o].mean()) ** 2) for o in range(3)])
        for n in range(5)
    ]
    np.testing.assert_allclose(ensemble.disagreement(inputs), expected, rtol=1e-4)


def test_loss_is_the_literal_one_over_the_timesteps_that_count():
    ensemble, inputs, target = make_ensemble(), numbers(5, 2), numbers(5, 3, seed=1)
    weight = np.float32([1, 0, 1, 1, 0])
    means = np.float64(ensemble(inputs))
    errors = [0.5 * ((means[k, n] - target[n]) ** 2).sum() for k in range(4) for n in (0, 2, 3)]
    np.testing.assert_allclose(ensemble.loss(inputs, target, weight), np.mean(errors), rtol=1e-5)
    assert float(ensemble.loss(inputs, target, np.zeros(5, np.float32))) == 0.0
