"""The stand-in for DeepMind Lab: where it is, and short ways to use it."""

from pathlib import Path

import numpy as np

STANDIN = str(Path(__file__).with_name("dmlab_standin"))
PATH = "contributed/dmlab30/rooms_watermaze"


def built(lab, observations=("RGB_INTERLEAVED",), level=PATH, **config):
    return lab.Lab(level, list(observations), config={key: str(v) for key, v in config.items()})


def started(lab, **config):
    env = built(lab, **config)
    env.reset(seed=1)
    return env


def action(**values):
    names = ["look", "up", "strafe", "move", "fire", "jump", "crouch"]
    return np.array([values.get(name, 0) for name in names], np.intc)
