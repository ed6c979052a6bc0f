"""Makes long open-loop predictions with a trained agent, on episodes that training never saw.

    python -m dreamer.predict --run runs/dmc_walker_walk/dreamer/0 --context 5 --horizon 50

The world model observes the first `context` timesteps of each episode and predicts the next
`horizon` from their actions alone (arXiv 1912.01603, figure 5). The program writes the errors. For
each decoded observation and for the reward, it also writes a video of truth, model and error, and
a still image of the first sequence.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from PIL import Image

from dreamer.analysis.open_loop import StepErrors, collect_fresh, read_saved, rows, step_errors
from dreamer.analysis.trained_run import RUN, WHICH, Loading, load_run
from dreamer.config.command_line import CommandLine, Option, run_main
from dreamer.errors import UserError
from dreamer.io.files import atomic_write, check_writable_folder, make_folder, write_json
from dreamer.logs.video import open_loop_strip, open_loop_video, write_video
from dreamer.runs.exports import PREFIX, resolve_run
from dreamer.system.streams import warn
from dreamer.training.build import longest_episode
from dreamer.training.collector import stack
from dreamer.training.reports import OPEN_LOOP_FPS

COMMAND_LINE = CommandLine(
    "python -m dreamer.predict",
    "Predicts far ahead with a trained world model, and measures the error per step ahead.",
    (
        RUN,
        Option("context", 5, "Timesteps that the model observes.", min=1),
        Option("horizon", 50, "Timesteps that it predicts from the actions alone.", min=1),
        Option("episodes", 5, "Number of episodes (fresh: of each task).", min=1),
        Option("source", "fresh", "fresh: episodes run now, with the actor's mode; saved: those "
               "in the run's eval_episodes/, if it has eval.save_episodes.",
               choices=("fresh", "saved")),
        Option("seed", -1, "Seed of fresh episodes' starts; -1: the run's.", min=-1),
        *WHICH,
        Option("output", "", "Folder for the results. Empty: predictions/ in the run, or "
               "predictions/NAME here for pretrained:NAME."),
    ),
    takes_config=False,
)  # fmt: skip
_MAX_SEQUENCES = 8  # in a video
_STILL_COLUMNS = 12  # of a still image, approximately
_AHEAD = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)


@dataclass(frozen=True)
class Prediction:
    """The model's predictions beside the truth."""

    about: dict[str, Any]  # run, checkpoint, task, step, source, seed and number of episodes
    context: int  # timesteps that the model observed
    horizon: int  # timesteps that it predicted
    result: dict[str, np.ndarray]  # truth/<key> and model/<key>, [B, context + horizon, ...]
    errors: dict[str, StepErrors]  # of each decoded observation and of the reward


def main(argv: Sequence[str]) -> int:
    """Reads the command line, predicts, prints and writes; returns the exit status."""
    options = COMMAND_LINE.parse(argv).options
    output = Path(options.pop("output") or default_output(options["run"])).expanduser()
    if output.is_symlink():  # a stranger's link may lead anywhere
        raise UserError(f"{output} is a link: name the folder itself with --output")
    check_writable_folder(output, "choose another folder with --output")
    prediction = predict(**options, on_progress=warn)
    print(as_text(prediction))
    for path in write(prediction, output):
        print(f"wrote {path}")
    return 0


def default_output(run: str) -> Path:
    """Returns predictions/ in the run, or predictions/NAME here for ``pretrained:NAME``."""
    folder = resolve_run(run)
    return Path("predictions", folder.name) if run.startswith(PREFIX) else folder / "predictions"


def predict(
    run: str, *, context: int = 5, horizon: int = 50, episodes: int = 5, source: str = "fresh",
    seed: int = -1, on_progress: Callable[[str], object] = lambda text: None,
    **loading: Unpack[Loading],
) -> Prediction:  # fmt: skip
    """Predicts with the agent of a run, which may still be training; arguments: see --help.

    `on_progress` is called with each thing that takes long, as it begins.
    Raises UserError if there is no run or no sound checkpoint, or no episode is long enough.
    """
    length = context + horizon
    on_progress(f"loading {run} and its environments")
    with load_run(run, **loading) as loaded:
        config, pool = loaded.config, loaded.envs
        seed = config.seed if seed < 0 else seed
        longest = longest_episode(pool)
        if longest and length > longest:
            raise UserError(
                f"--context {context} and --horizon {horizon} need episodes of {length} timesteps, "
                f"but those of {config.task} have at most {longest}: choose smaller ones"
            )
        if source == "saved":
            found = read_saved(loaded.rundir.eval_episodes, pool, episodes, length)
        else:
            policy = partial(loaded.agent.policy, mode="eval")
            on_progress(f"running {episodes} episode(s)")
            found = collect_fresh(pool, policy, seed, episodes, length)
    agent = loaded.agent
    on_progress(f"predicting {horizon} timesteps")
    result = agent.predict(stack(found), context)
    keys = [key.removeprefix("truth/") for key in result if key.startswith("truth/")]
    errors = {k: step_errors(result[f"truth/{k}"], result[f"model/{k}"], context) for k in keys}
    if config.reward.transform != "none":
        unit = f"{config.reward.transform} of the reward"
        errors["reward"] = dataclasses.replace(errors["reward"], unit=unit)
    about = {
        "run": str(loaded.rundir.path), "checkpoint": str(loaded.checkpoint), "task": config.task,
        "step": loaded.step, "source": source, "seed": seed, "episodes": len(found),
    }  # fmt: skip
    return Prediction(about, context, horizon, result, errors)


def as_text(prediction: Prediction) -> str:
    """Returns the facts, and a table of the errors at some numbers of steps ahead."""
    about, errors = prediction.about, prediction.errors
    whence = {
        "fresh": f"run now with the actor's mode, seed {about['seed']}",
        "saved": "saved by the run's evaluations",
    }[about["source"]]
    heads = ["steps ahead", *(name for key in errors for name in (key, "still"))]
    table = [heads]
    for ahead in sorted({k for k in _AHEAD if k < prediction.horizon} | {prediction.horizon}):
        cells = [f"{v[ahead - 1]:.4g}" for e in errors.values() for v in (e.mean, e.still)]
        table.append([str(ahead), *cells])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in table]
    units = ", ".join(f"{key} in {error.unit}" for key, error in errors.items())
    return "\n".join([
        f"{about['task']} after {about['step']:,} steps, checkpoint {about['checkpoint']}",
        f"{about['episodes']} held-out episodes, {whence}; the model observes {prediction.context} "
        f"timesteps and predicts {prediction.horizon}",
        f"mean absolute errors: {units}; still: if nothing changed after the last timestep seen",
        *lines,
    ])  # fmt: skip


def write(prediction: Prediction, folder: Path) -> list[Path]:
    """Writes errors, videos, and still images of first sequences; returns their paths."""
    make_folder(folder)
    step, context, horizon = prediction.about["step"], prediction.context, prediction.horizon
    paths = [folder / f"errors-{step}.json"]
    errors = {key: dataclasses.asdict(value) for key, value in prediction.errors.items()}
    about = {**prediction.about, "context": context, "horizon": horizon, "errors": errors}
    write_json(paths[0], about)
    every = max(1, (context + horizon) // _STILL_COLUMNS)
    for key in prediction.errors:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", key)
        video, still = folder / f"{name}-{step}.gif", folder / f"{name}-{step}.png"
        sequences = (prediction.result[f"{of}/{key}"][:_MAX_SEQUENCES] for of in ("truth", "model"))
        truth, model, error = rows(*sequences)
        write_video(video, open_loop_video(truth, model, error, context), OPEN_LOOP_FPS)
        strip = open_loop_strip(truth[0], model[0], error[0], context, every)
        with atomic_write(still) as file:
            Image.fromarray(strip).save(file, "PNG")
        paths += [video, still]
    return paths


if __name__ == "__main__":
    run_main(main)
