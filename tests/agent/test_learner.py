"""The whole agent learns from pixels, on a tiny task whose best return is known."""

from collections.abc import Callable
from pathlib import Path

import curtain_env
import numpy as np

from dreamer import load_config, train

# Small enough for a minute. Every seed tried had 0.85 of the best return by step 700, and by 1000.
# The actor's mean stays within (-1, 1): where tanh is flat, a wrong first habit is not unlearnt
# in the few updates there are.
TINY = {
    "steps": 1000, "precision": "float32",
    "train.batch_size": 8, "train.batch_length": 10, "train.prefill": 500, "train.pretrain": 200,
    "train.every": 100, "train.updates": 50,
    "encoder.cnn_depth": 4, "decoder.cnn_depth": 4,
    "rssm.stoch": 8, "rssm.deter": 32, "rssm.hidden": 32, "loss.free_nats": 1.0,
    "reward.units": 32, "value.layers": 2, "value.units": 32, "discount.enabled": False,
    "actor.layers": 2, "actor.units": 32,
    "actor.mean_scale": 1.0, "actor.init_std": 0.5, "actor.min_std": 0.1,
    "explore.noise_scale": 0.4,
    "behavior.horizon": 6, "behavior.gamma": 0.9,
    "optimizer.model_lr": 2e-3, "optimizer.actor_lr": 5e-4, "optimizer.value_lr": 1e-3,
    "eval.every": 1000, "eval.videos": 0, "log.video_every": 0, "log.tensorboard": False,
}  # fmt: skip


def mean_return(choose: Callable[[], float], episodes: int = 200) -> float:
    """The mean return of a policy that does not look at observations."""
    env, total = curtain_env.make(), 0.0
    for seed in range(episodes):
        env.reset(seed=seed)
        total += sum(env.step([choose()])[1] for _ in range(curtain_env.LENGTH))
    return total / episodes


def test_learns_from_pixels_to_draw_a_curtain_to_the_middle(tmp_path: Path) -> None:
    """Neither chance nor a habit gets there: one has to see on which side the edge is."""
    best = curtain_env.best_return()
    threshold = 0.6 * best
    rng = np.random.default_rng(0)
    for blind in (lambda: rng.uniform(-1, 1), lambda: -1.0, lambda: 1.0):
        assert mean_return(blind) < threshold / 3
    task = f"{Path(curtain_env.__file__)}:make"
    config = load_config(task=task, overrides={**TINY, "steps": 700, "logdir": str(tmp_path)})
    result = train(config)
    assert result.step == 700
    assert threshold < result.eval_return <= best + 1e-3
