"""Figures of a model's predictions, for print: open loop, along episodes, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamer.analysis.foresight import Calibration, Foresight
from dreamer.analysis.open_loop import rows
from dreamer.analysis.print_style import COLOURS, WIDTH, footnotes, legend, new_figure
from dreamer.logs.video import newest_frame

MOST = 4  # episodes in a figure
_COMPONENTS = 8  # of vectors
_AHEAD = 9  # columns of imagined images
_TRUTH, _MODEL, _SEEN = "0.1", COLOURS[4], COLOURS[0]
_BINS = 8


def draw_images(truth: np.ndarray, model: np.ndarray, context: int) -> Figure:
    """Returns images uint8 [B, T, H, W, C] as in the paper's figure: truth, model, error.

    Columns are the first and the last timestep that the model observed, and then timesteps that it
    imagined, equally far apart.
    """
    truth, model, error = rows(truth[:MOST], model[:MOST])
    count, length = truth.shape[:2]
    step = max(1, (length - context) // _AHEAD)
    ahead = [*range(step, length - context + 1, step)][:_AHEAD]
    times = [*dict.fromkeys((0, context - 1)), *(context - 1 + k for k in ahead)]
    side = (WIDTH - 0.5) / len(times)
    shape = truth.shape[2] / truth.shape[3]
    figure, panels = new_figure(
        3 * count * side * shape + 0.35, 3 * count * len(times), len(times)
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)  # type: ignore
    for i, axes in enumerate(panels):
        (episode, row), column = divmod(i // len(times), 3), i % len(times)
        picture = newest_frame((truth, model, error)[row][episode, times[column]])
        picture = np.broadcast_to(picture, (*picture.shape[:2], 3))
        axes.imshow(picture, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        seen = times[column] < context
        for spine in axes.spines.values():
            spine.set(visible=True, color=_SEEN if seen else "0.7", linewidth=1.2 if seen else 0.5)
        if i < len(times):
            number = times[column] + 1
            axes.set_title(f"t = {number}" if seen else f"+{number - context}", fontsize=7.5, pad=2)
        if column == 0:
            axes.set_ylabel(("truth", "model", "error")[row], fontsize=7.5, labelpad=2)
    return footnotes(figure, [
        f"Blue frames: the model observes the first {context} timesteps. Then it imagines from the "
        "actions alone (+k: k timesteps ahead). Error: grey where model and truth agree."])


def draw_vectors(
    truth: Mapping[str, np.ndarray], model: Mapping[str, np.ndarray], context: int
) -> Figure:
    """Returns vectors [B, T, n] or [B, T] by key as curves: a row a component, a column an episode.
    """
    flat = {
        key: [found[key].reshape(*found[key].shape[:2], -1)[:MOST] for found in (truth, model)]
        for key in truth
    }
    parts = [(key, i) for key, (one, _) in flat.items() for i in range(one.shape[-1])]
    shown = parts[:_COMPONENTS]
    count, length = next(iter(flat.values()))[0].shape[:2]
    figure, panels = new_figure(0.8 * len(shown) + 0.7, len(shown) * count, count)
    ahead = np.arange(length) - context + 1
    for i, axes in enumerate(panels):
        (key, part), episode = shown[i // count], i % count
        one, other = (values[..., part] for values in flat[key])
        axes.axvspan(ahead[0] - 0.5, 0.5, color=_SEEN, alpha=0.15, linewidth=0, label="observed")
        axes.plot(ahead, one[episode], color=_TRUTH, label="truth")
        axes.plot(ahead, other[episode], color=_MODEL, linestyle="--", label="model")
        both = np.concatenate([one, other])
        margin = 0.05 * float(np.ptp(both)) or 0.1
        axes.set_ylim(both.min() - margin, both.max() + margin)
        _frame(axes, ahead[0] - 0.5, ahead[-1], outer=i // count == len(shown) - 1)
        if episode == 0:
            name = key if flat[key][0].shape[-1] == 1 else f"{key}\n[{part}]"
            axes.set_ylabel(name, fontsize=7.5)
        else:
            axes.set_yticklabels([])
        if i < count:
            axes.set_title(f"episode {episode + 1}")
    figure.align_ylabels(panels[::count])
    figure.supxlabel("Timesteps after the last one observed", fontsize=8)
    legend(figure, panels)
    cut = [f"The first {len(shown)} of {len(parts)} components."] if len(parts) > len(shown) else []
    return footnotes(figure, [f"The model observes {context} timesteps, and imagines the others "
                              "from the actions alone.", *cut])  # fmt: skip


def draw_foresights(foresights: Sequence[Foresight], horizon: int) -> Figure:
    """Returns rewards and values along episodes: what came, what was seen and what was imagined."""
    shown = foresights[:MOST]
    columns = 1 if shown[0].value is None else 2
    figure, panels = new_figure(1.25 * len(shown) + 0.8, columns * len(shown), columns)
    for row, one in enumerate(shown):
        for column in range(columns):
            axes = panels[row * columns + column]
            if column == 0:
                came, seen, imagined = one.truth, one.reward, one.imagined
                came = np.where(np.arange(len(came)) > 0, came, np.nan)  # a start has no reward
            else:
                came, seen, imagined = one.returns, one.value, one.imagined_value  # type: ignore
            _curves(axes, one, (came, seen, imagined), column == 1, horizon)
            _frame(axes, 0, len(one.truth) - 1, outer=row == len(shown) - 1)
            if row == 0:
                axes.set_title("Value" if column else "Reward")
        panels[row * columns].set_ylabel(f"episode {row + 1}")
    figure.supxlabel("Timestep", fontsize=8)
    legend(figure, panels, 3)
    notes = [f"From each dot on, the model imagines {horizon} steps from the actions alone."]
    if columns == 2:
        notes.append("What came, as a value: the discounted rewards that followed; dotted where "
                     "they rest for more than half on the value at the time limit.")
    return footnotes(figure, notes)


def _curves(
    axes: Axes, one: Foresight, found: tuple[np.ndarray, np.ndarray, np.ndarray],
    are_values: bool, horizon: int,
) -> None:  # fmt: skip
    came, seen, imagined = found
    times = np.arange(len(came))
    solid = one.judged if are_values and one.judged is not None else np.ones(len(came), bool)
    axes.plot(times, np.where(solid, came, np.nan), color=_TRUTH, label="what came")
    axes.plot(times, np.where(solid, np.nan, came), color=_TRUTH, linestyle=":")
    axes.plot(times, seen, color=_SEEN, linewidth=1, label="model, having observed the timestep")
    last = -horizon
    for i, start in enumerate(one.starts):
        if start < last + horizon:
            continue  # so that no two overlap
        last = start
        axes.plot(start + np.arange(imagined.shape[1]), imagined[i], color=_MODEL,
                  label="model, imagined from the dot on")  # fmt: skip
        axes.plot(start, imagined[i, 0], "o", color=_MODEL, markersize=2.5)


def draw_calibration(found: Sequence[Calibration]) -> Figure:
    """Returns what came over what was predicted, a panel a kind of prediction."""
    figure, panels = new_figure(2.6, len(found), len(found), width=min(WIDTH, 2.6 * len(found)))
    for axes, one in zip(panels, found, strict=True):
        axes.set_title(one.name[0].upper() + one.name[1:])
        axes.set_xlabel("Predicted")
        if not len(one.came):
            axes.text(0.5, 0.5, "no episode is long enough", ha="center", va="center",
                      transform=axes.transAxes)  # fmt: skip
            continue
        low = min(one.predicted.min(), one.came.min())
        high = max(one.predicted.max(), one.came.max())
        margin = 0.05 * (high - low) or 0.5
        ends = low - margin, high + margin
        axes.plot(ends, ends, color="0.5", linewidth=0.8, linestyle="--", label="perfect")
        axes.plot(one.predicted, one.came, ".", color=_SEEN, markersize=2, alpha=0.35,
                  label="one prediction", rasterized=True)  # fmt: skip
        groups = np.array_split(np.argsort(one.predicted), min(_BINS, len(one.came)))
        centres = [one.predicted[group].mean() for group in groups]
        axes.errorbar(
            centres, [one.came[group].mean() for group in groups],
            [one.came[group].std() for group in groups], color=_MODEL, marker="o", markersize=3,
            linewidth=1, elinewidth=0.8, capsize=1.5, label="mean and deviation of an eighth",
        )  # fmt: skip
        axes.set(xlim=ends, ylim=ends, aspect="equal")
        low_side = one.came.mean() > one.predicted.mean()  # of the diagonal: it is empty there
        place = (0.97, 0.03, "right", "bottom") if low_side else (0.03, 0.97, "left", "top")
        axes.text(*place[:2], _words(one), transform=axes.transAxes, ha=place[2], va=place[3],
                  fontsize=6.5)  # fmt: skip
    panels[0].set_ylabel("What came")
    legend(figure, panels, 3)
    return footnotes(figure, [
        "Returns are discounted. Those that rest for more than half on the value at a time limit "
        "are left out."])


def _words(one: Calibration) -> str:
    found = one.statistics()
    text = f"n = {found['count']}\nbias {found['bias']:+.3g}\nrms error {found['rmse']:.3g}"
    correlation = found["correlation"]
    return text if correlation is None else f"{text}\ncorrelation {correlation:.2f}"


def _frame(axes: Axes, left: float, right: float, *, outer: bool) -> None:
    axes.set_xlim(left, right)
    axes.tick_params(labelbottom=outer)
