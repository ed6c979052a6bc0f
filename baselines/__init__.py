"""The agents that Dreamer is compared with, in the same harness: `python -m baselines.run`.

Each agent is one module with a function ``make(config, obs_space, act_space)`` and, where the usual
loop does not suit it, a ``TRAINER``. They stand on dreamer's environments, replay, trainer, logger,
evaluation and checkpoints; their keys are in configs/agents/<agent>.yaml, their presets in
configs/presets/<agent>/. Runs from the checkout; only dreamer is installed.
"""
