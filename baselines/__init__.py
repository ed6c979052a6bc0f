"""The agents that Dreamer is compared with, in the same harness: `python -m baselines.run`.

registry.py lists for each agent the class or function that makes it from ``(config, obs_space,
act_space)``. The agents use dreamer's environments, replay, trainer, logger, evaluation and
checkpoints. Their keys are in configs/agents/<agent>.yaml, their presets in
configs/presets/<agent>/. They run from a checkout: only dreamer is installed.
"""
