"""A3C: actor-learners in processes of their own, which share their parameters."""
