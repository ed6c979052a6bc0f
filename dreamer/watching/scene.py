"""Draws the page's view as pictures, from the same messages that the page gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dreamer.system.messages import Message

SIZE = (800, 448)  # width and height of one side
FASTER = 3  # a dream runs ahead so many steps with each step of the episode
_BEFORE, _KEPT = 110, 8  # moments before now in the curves; dreams whose curves stay
_PICTURE, _MARGIN, _GAP, _TOP = 192, 14, 12, 52  # pixels
_BLUE, _VERMILION, _GREEN, _PURPLE = "#0072b2", "#d55e00", "#009e73", "#8a4a73"
_FAINT = "#f0bd97"  # of an earlier dream
_INK, _DIM, _LINE, _PANEL, _PAPER = "#1a1a1a", "#555555", "#d5d8dd", "#f4f5f7", "#ffffff"
_PANELS = (("reward", "Reward", 62), ("value", "Value", 62), ("kl", "KL, nats", 34))
_MOST_BARS = 24  # of actions; there is no room for more
_SHARP = 2  # curves are drawn so many times as large, and reduced

Values = Sequence[float] | np.ndarray


class Scene:
    """What the page shows, as far as messages have told it."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}
        self._sides: list[_Side] = []

    @property
    def speed(self) -> int:
        """Steps a second."""
        return int(self._state.get("speed", 15))

    def take(self, message: Message) -> bool:
        """Takes a message; returns whether it was a step, after which the view has changed."""
        header, arrays = message
        kind = header["kind"]
        if kind == "state":
            self._state = header
            if len(self._sides) != len(header["sides"]):
                self._sides = [_Side() for _ in header["sides"]]
            if header["dreaming"] is None:
                for side in self._sides:
                    side.dreamt = None
        elif kind in ("moment", "dream", "truth", "dreamt", "history"):
            for i, side in enumerate(self._sides):
                own = {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(f"{i}/")}
                getattr(side, f"take_{kind}")({**header, **header["sides"][i]}, own)
        return kind in ("moment", "dreamt", "truth")

    def draw(self) -> np.ndarray:
        """Returns the view, uint8 [H, W, 3]; sides stand beside each other."""
        pairs = zip(self._sides, self._state["sides"], strict=True)
        images = [np.asarray(_draw(side, self._state, facts)) for side, facts in pairs]
        return np.concatenate(images, axis=1)


class _Side:
    """One agent: its curves, its newest moment, and its dreams; as in the page's script."""

    def __init__(self) -> None:
        self.clear(0)

    def clear(self, first: int) -> None:
        self.first = first
        keys = ("reward", "predicted", "value", "kl")
        self.series: dict[str, list[float]] = {key: [] for key in keys}
        self.dreams: list[dict[str, Any]] = []
        self.now: dict[str, Any] | None = None
        self.arrays: dict[str, np.ndarray] = {}
        self.dreamt: dict[str, Any] | None = None
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None

    def take_history(self, told: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.clear(told["time"])
        for key, values in self.series.items():
            values.extend(arrays[key].tolist())

    def take_moment(self, told: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        time = told["time"]
        if time == 0 or time < self.first:
            self.clear(time)
        for key, values in self.series.items():
            del values[time - self.first :]
            values += [math.nan] * (time - self.first - len(values)) + [told.get(key, math.nan)]
        self.now, self.arrays = told, arrays
        for dream in self.dreams[-1:]:
            dream["step"] = (dream["step"] + FASTER) % len(dream["reward"][0])
        self._learn(arrays.get("vector"), arrays.get("model_vector"))

    def take_dream(self, told: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.dreams = [*self.dreams[1 - _KEPT :], {"time": told["time"], "step": 0, **arrays}]
        self._learn(*(arrays["vector"].reshape(-1, arrays["vector"].shape[-1])
                      if "vector" in arrays else ()))  # fmt: skip

    def take_truth(self, told: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.dreamt = {"time": told["time"], "step": 0, "reward": [], "value": [], "came": True,
                       "arrays": {**arrays, "truth": arrays.get("picture")}}  # fmt: skip

    def take_dreamt(self, told: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        if self.dreamt is None:
            self.dreamt = {"time": told["time"], "reward": [], "value": []}
        self.dreamt |= {"step": told["step"], "arrays": arrays, "came": told["came"]}
        self.dreamt["reward"].append(arrays["reward"])
        self.dreamt["value"].append(arrays.get("value", arrays["reward"] * math.nan))

    def _learn(self, *vectors: np.ndarray | None) -> None:
        for vector in vectors:
            if vector is not None:
                self.low = vector if self.low is None else np.minimum(self.low, vector)
                self.high = vector if self.high is None else np.maximum(self.high, vector)

    def lines(self, key: str) -> list[tuple[Values, int, str, int]]:
        """The curves of a panel: values, the time of the first one, colour, and the dashes."""
        found: list[tuple[Values, int, str, int]] = []
        if self.dreamt and self.dreamt.get(key):
            for values in np.array(self.dreamt[key]).T:
                found.append((values, self.dreamt["time"] + 1, _VERMILION, 2))
        elif not self.dreamt:
            for dream in self.dreams:
                colour = _VERMILION if dream is self.dreams[-1] else _FAINT
                found += [(row, dream["time"] + 1, colour, 2) for row in dream.get(key, ())]
        if key == "reward":
            found.append((self.series["predicted"], self.first, _PURPLE, 1))
        return [*found, (self.series[key], self.first, _BLUE, 0)]


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _draw(side: _Side, state: dict[str, Any], facts: dict[str, Any]) -> Image.Image:
    image = Image.new("RGB", SIZE, _PAPER)
    draw = ImageDraw.Draw(image)
    near = " (nearest real)" if facts["decodes"] == "nearest" else ""
    draw.text((_MARGIN, 8), f"{facts['task']}, {facts['agent']} after {facts['step']:,} steps",
              _INK, _font(16))  # fmt: skip
    if side.dreamt:
        step, time = side.dreamt["step"], side.dreamt["time"]
        who = "the agent acts" if state["by_hand"] is None else "a person acts"
        draw.text((_MARGIN, 29), f"dreaming, step {step} from moment {time}; {who}", _VERMILION,
                  _font(14))  # fmt: skip
        arrays = side.dreamt["arrays"]
        came = "what then came" if side.dreamt["came"] else "it never was acted"
        shown = [(arrays.get("truth"), came, False)]
        if step and "picture" in arrays:
            shown.append((_grid(arrays["picture"]), f"the dream{near}", True))
        _vectors(draw, side, facts, arrays.get("true_vector"), None, arrays.get("vector"))
        _bars(draw, facts, arrays, imagined=step > 0)
    elif side.now:
        now, arrays = side.now, side.arrays
        draw.text((_MARGIN, 29), f"acting, moment {now['time']}, return {now['return']:.1f}", _BLUE,
                  _font(14))  # fmt: skip
        shown = [(arrays.get("picture"), "environment", False)]
        dream = side.dreams[-1] if side.dreams else {}
        if "model_picture" in arrays:
            shown.append((arrays["model_picture"], f"reconstruction{near}", False))
        if "picture" in dream:
            step = dream["step"]
            text = f"imagined, {step + 1} ahead{near}"
            shown.append((_grid(dream["picture"][:, step]), text, True))
        ahead = dream["vector"][:, dream["step"]] if "vector" in dream else None
        _vectors(draw, side, facts, arrays.get("vector"), arrays.get("model_vector"), ahead)
        _bars(draw, facts, arrays, imagined=False)
    else:
        return image
    for i, (picture, text, imagined) in enumerate(shown):
        x = _MARGIN + i * (_PICTURE + _GAP)
        if picture is not None:
            _paste(image, picture, (x, _TOP))
            draw.text((x, _TOP + _PICTURE + 3), text, _DIM, _font(13))
        if imagined:
            draw.rectangle((x - 2, _TOP - 2, x + _PICTURE + 1, _TOP + _PICTURE + 1), None,
                           _VERMILION, 2)  # fmt: skip
    _curves(image, side, facts, state["ahead"])
    x = _MARGIN + 3 * (_PICTURE + _GAP) + 4
    legend = (("line: came, or valued now", _BLUE), ("dashes: imagined", _VERMILION),
              ("dots: reward predicted", _PURPLE))  # fmt: skip
    for i, (text, colour) in enumerate(legend[: 3 if facts["model"] else 1]):
        draw.text((x, _TOP + _PICTURE - 46 + 16 * i), text, colour, _font(12))
    return image


def _paste(image: Image.Image, picture: np.ndarray, at: tuple[int, int]) -> None:
    coloured = np.broadcast_to(picture, (*picture.shape[:2], 3))
    enlarged = Image.fromarray(np.ascontiguousarray(coloured))
    smooth = picture.shape[0] % 96 == 0  # drawn for people; what an agent sees stays sharp
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    image.paste(enlarged.resize((_PICTURE, _PICTURE), how), at)


def _grid(pictures: np.ndarray) -> np.ndarray:
    """One picture, or four in a square: uint8 [n, H, W, C] -> [.., .., C]."""
    if len(pictures) == 1:
        return pictures[0]
    return np.concatenate([np.concatenate(list(row), 1) for row in (pictures[:2], pictures[2:])], 0)


def _bars(
    draw: ImageDraw.ImageDraw, facts: dict[str, Any], arrays: dict[str, np.ndarray], imagined: bool
) -> None:
    """Each action as a bar, from -1 to 1, or its probability."""
    left, right = _MARGIN + 3 * (_PICTURE + _GAP) + 4, SIZE[0] - _MARGIN
    names = facts["actions"][:_MOST_BARS]
    draw.text((left, _TOP - 4), "imagined action" if imagined else "action", _DIM, _font(13))
    row = min(24, (_PICTURE - 68) // len(names))
    action = arrays["action"].reshape(-1)[: len(names)]
    values = action
    if facts["discrete"] and "probabilities" in arrays:
        values = arrays["probabilities"].reshape(-1)[: len(names)]
    begin = left + 66
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y = _TOP + 14 + i * row
        taken = "> " if facts["discrete"] and action[i] > 0.5 else ""
        draw.text((left, y), (taken + name)[:11], _INK, _font(min(12, row)))
        draw.rectangle((begin, y + 1, right, y + row - 4), _PANEL)
        middle = begin if facts["discrete"] else (begin + right) / 2
        end = middle + float(value) * (right - middle)
        box = (min(middle, end), y + 1, max(middle, end), y + row - 4)
        draw.rectangle(box, _VERMILION if imagined else _BLUE)


def _vectors(
    draw: ImageDraw.ImageDraw, side: _Side, facts: dict[str, Any], truth: np.ndarray | None,
    model: np.ndarray | None, dream: np.ndarray | None,
) -> None:  # fmt: skip
    """Observations of an agent from states: a line each, from the least to the largest value."""
    if facts["decodes"] != "vector" or side.low is None or side.high is None:
        return
    n = len(facts["elements"])
    left, row = _MARGIN + _PICTURE + _GAP + 6, min(26, (_PICTURE - 18) // max(n, 1))
    begin, end = left + 150, left + 390
    span = np.where(side.high > side.low, side.high - side.low, 1.0)
    for i, name in enumerate(facts["elements"]):
        y = _TOP + row * i + row / 2
        draw.text((left, y), name[:24], _INK, _font(max(8, min(12, row))), anchor="lm")
        draw.line((begin, y, end, y), _LINE)
        marks = (dream, _VERMILION, 5), (model, _PURPLE, 6), (truth, _BLUE, 3)
        for vectors, colour, radius in marks:
            for value in () if vectors is None else vectors.reshape(-1, n)[:, i]:
                x = begin + (end - begin) * min(1, max(0, (value - side.low[i]) / span[i]))
                box = (x - radius, y - radius, x + radius, y + radius)
                if vectors is truth:
                    draw.ellipse(box, colour)
                elif vectors is model:
                    draw.ellipse(box, None, colour, 2)
                else:
                    points = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
                    draw.polygon(points, None, colour, 2)
    text = "disc: came   ring: reconstructed   diamond: imagined"
    draw.text((left, _TOP + _PICTURE + 3), text, _DIM, _font(13))


def _curves(image: Image.Image, side: _Side, facts: dict[str, Any], ahead: int) -> None:
    """Reward, value and KL over the moments: what came, and what was imagined."""
    top, left, right = _TOP + _PICTURE + 24, 56, SIZE[0] - _MARGIN
    now = side.now["time"] if side.now else 0
    if side.dreamt:
        last = side.dreamt["time"] + max(ahead, side.dreamt["step"] + 5)
        begin = max(side.first, last - _BEFORE - ahead)
    else:
        begin = max(side.first, now - _BEFORE)
        last = max(now, begin + 30) + (ahead if facts["model"] else 5)
    draw = ImageDraw.Draw(image)
    for key, name, tall in _PANELS:
        if key != "reward" and not facts[key]:
            continue
        lines = [line for line in side.lines(key) if len(line[0])]
        inside = [np.asarray(v, np.float64)[max(0, begin - start) : last - start + 1]
                  for v, start, *_ in lines]  # fmt: skip
        finite = np.concatenate([np.zeros(0), *(v[np.isfinite(v)] for v in inside)])
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        low = 0.0 if key == "kl" else low
        least = max(abs(low), abs(high)) * 0.02 or 1.0
        if high - low < least:
            low, high = low - least / 2, high + least / 2
        size = (right - left, tall)
        panel = _panel(size, lines, (begin, last), (low, high), stems=key == "kl")
        image.paste(panel, (left, top))
        marks = [(side.dreamt["time"] + side.dreamt["step"] if side.dreamt else now, _INK)]
        for time, colour in marks:
            x = left + (time - begin) / (last - begin) * size[0]
            draw.line((x, top, x, top + tall), colour)
        width = draw.textlength(name, _font(12))
        draw.rectangle((left + 2, top + 2, left + width + 7, top + 17), _PANEL)
        draw.text((left + 4, top + 2), name, _INK, _font(12))
        for value, y, anchor in ((high, top, "ra"), (low, top + tall, "rd")):
            draw.text((left - 5, y), f"{value:.3g}", _DIM, _font(11), anchor=anchor)
        top += tall + 6


def _panel(
    size: tuple[int, int], lines: Sequence[tuple[Values, int, str, int]], times: tuple[int, int],
    values: tuple[float, float], stems: bool,
) -> Image.Image:  # fmt: skip
    wide, tall = (n * _SHARP for n in size)
    image = Image.new("RGB", (wide, tall), _PANEL)
    draw = ImageDraw.Draw(image)
    (begin, last), (low, high) = times, values

    def place(time: int, value: float) -> tuple[float, float]:
        share = (value - low) / (high - low)
        return (time - begin) / (last - begin) * wide, tall * (0.97 - 0.94 * share)

    for series, start, colour, dashes in lines:
        before: tuple[float, float] | None = None
        for i in range(max(0, begin - start), min(len(series), last - start + 1)):
            if not math.isfinite(series[i]):
                before = None
                continue
            at = place(start + i, float(series[i]))
            if stems:
                draw.line((at[0], tall, *at), _GREEN, 2 * _SHARP)
            elif dashes == 1:
                draw.ellipse((at[0] - 2, at[1] - 2, at[0] + 2, at[1] + 2), colour)
            elif before is not None:
                # A dash is the first two thirds of a step.
                share = 0.6 if dashes else 1.0
                end = [b + share * (a - b) for a, b in zip(at, before, strict=True)]
                draw.line((*before, *end), colour, _SHARP + 1)
            before = at
    return image.resize(size, Image.Resampling.BOX)
