"""Services for tests of the benchmark's processes, and a small one-hot task with vectors."""

import os
import sys

import gymnasium

from dreamer.errors import UserError


class Echo:
    """Says back what it is asked, fails, or dies."""

    def __init__(self, greeting: str) -> None:
        if not greeting:
            raise UserError("an echo needs a greeting")
        self._greeting = greeting

    def say(self, name: str) -> dict[str, str]:
        print("this line is no message")
        return {"said": f"{self._greeting} {name}"}

    def modules(self) -> list[str]:
        return list(sys.modules)

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise ValueError("something went wrong")

    def die(self) -> None:
        print("last words", flush=True)
        os._exit(3)


def make_cartpole() -> gymnasium.Env:
    """Vectors in, one-hot actions out."""
    return gymnasium.make("CartPole-v1")
