"""Videos: GIF and MP4 files, tiles of several videos, open-loop predictions.

A video is uint8 [T, H, W, C] with C = 3 (colour) or 1 (grey). Of images with more channels, which
are stacked frames, the newest frame is shown. Small frames are enlarged in files, so that 64x64
images are large enough for a screen.
"""

from __future__ import annotations

import importlib.util
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dreamer.errors import UserError
from dreamer.io.files import atomic_write, write_file

_MAX_GIF_FPS = 50  # browsers play faster GIFs slowly
_SIDE = 768  # pixels; frames are enlarged up to this width or height, at most 4 times
_CONTEXT = (60, 180, 75)  # colour of the border while the model sees the truth: green
_IMAGINED = (40, 40, 40)  # colour of the border afterwards
_BORDER = 2  # pixels


def write_video(path: str | os.PathLike[str], frames: np.ndarray, fps: float) -> None:
    """Writes uint8 [T, H, W, C] at `fps` frames a second, as a GIF or an MP4 by the path's ending.

    Raises UserError as `check_video_name`, or because the file cannot be written.
    """
    if check_video_name(path) == ".gif":
        write_file(path, encode_gif(frames, fps))
    else:
        _write_mp4(Path(path), frames, fps)


def check_video_name(path: str | os.PathLike[str]) -> str:
    """Returns a name's ending, .gif or .mp4; UserError for others, or an MP4 without ffmpeg."""
    ending = Path(path).suffix.lower()
    if ending not in (".gif", ".mp4"):
        raise UserError(f"cannot write a video to {path}; its name must end in .gif or .mp4")
    if ending == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError(
            f"{path}: MP4 files need ffmpeg; run 'pip install imageio-ffmpeg', or end the name in "
            ".gif"
        )
    return ending


def encode_gif(frames: np.ndarray, fps: float) -> bytes:
    """Returns a GIF that repeats without end; arguments as for `write_video`.

    GIFs count time in 1/100 s. Delays are rounded so that errors do not add up. Above 50 frames a
    second, frames are left out, so that the speed is right.
    """
    frames, scale = _coloured(frames)
    stride = math.ceil(fps / _MAX_GIF_FPS)
    frames, fps = frames[::stride], fps / stride
    ends = np.round(100 * np.arange(len(frames) + 1) / fps).astype(int)
    delays = (10 * np.diff(ends)).tolist()
    palette = _palette(frames)
    # Colours are reduced before the enlargement, because that is faster.
    images = [
        image.quantize(palette=palette, dither=Image.Dither.NONE).resize(
            (image.width * scale, image.height * scale), Image.Resampling.NEAREST
        )
        for image in map(Image.fromarray, frames)
    ]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=delays, loop=0)
    return buffer.getvalue()


def _palette(frames: np.ndarray) -> Image.Image:
    """256 colours for the whole video.

    Compared with colours for each frame, nothing flickers and files have a half to a tenth of the
    size; the mean error on control tasks is 1.6 of 255 instead of 0.5. MAXCOVERAGE keeps rare
    colours, such as a small target's.
    """
    pixels = frames.reshape(-1, 3)
    some = np.random.default_rng(0).integers(len(pixels), size=(256, 256))
    return Image.fromarray(pixels[some]).quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)


def _write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    import imageio_ffmpeg

    frames, scale = _coloured(frames)
    frames = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    # Both sides must be even, because the pixel format halves the resolution of colours.
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, odd, mode="edge")
    with atomic_write(path) as file:
        writer = imageio_ffmpeg.write_frames(
            file.name, frames.shape[2:0:-1], fps=fps, macro_block_size=2,
            output_params=["-f", "mp4"], ffmpeg_log_level="error",
        )  # fmt: skip
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()


def tile(videos: Sequence[np.ndarray]) -> np.ndarray:
    """Puts n videos uint8 [T_i, H, W, C] in a grid uint8 [max T_i, rows*H, columns*W, C].

    A shorter video repeats its last frame; empty places are black.
    """
    columns, videos = math.ceil(math.sqrt(len(videos))), [newest_frame(v) for v in videos]
    length = max(len(video) for video in videos)
    even = [video[np.minimum(np.arange(length), len(video) - 1)] for video in videos]
    even += [np.zeros_like(even[0])] * (-len(even) % columns)
    starts = range(0, len(even), columns)
    rows = [np.concatenate(even[start : start + columns], axis=2) for start in starts]
    return np.concatenate(rows, axis=1)


def newest_frame(images: np.ndarray) -> np.ndarray:
    """Returns the last frame of stacked ones: uint8 [..., C] -> [..., 3 or 1]."""
    channels = images.shape[-1]
    return images[..., -3:] if channels % 3 == 0 else images[..., -1:]


def signed_difference(truth: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Two uint8 [...] -> uint8 [...]: grey if they are equal, lighter if `model` is lighter."""
    return ((model.astype(np.int16) - truth + 255) // 2).astype(np.uint8)


def open_loop_video(
    truth: np.ndarray, model: np.ndarray, error: np.ndarray, context: int
) -> np.ndarray:
    """Returns a video of open-loop predictions: rows truth, model, error; a column a sequence.

    uint8 [B, T, H, W, C] become uint8 [T, 3*(H+4), B*(W+4), 3]. The first `context` frames, which
    the model saw, have a green border; those that it imagined have a dark one.
    """
    rows = _framed(truth, model, error, context)
    return np.concatenate([np.concatenate(list(videos), axis=2) for videos in rows], axis=1)


def open_loop_strip(
    truth: np.ndarray, model: np.ndarray, error: np.ndarray, context: int, every: int = 5
) -> np.ndarray:
    """Returns an image of one open-loop prediction, as in papers: time runs to the right.

    uint8 [T, H, W, C] become uint8 [3*(H+4), n*(W+4), 3]: frames 0, every, 2*every, ..., n in all.
    """
    rows = _framed(truth[None], model[None], error[None], context)
    strips = [np.concatenate(list(row[0, ::every]), axis=1) for row in rows]
    return np.concatenate(strips, axis=0)


def _framed(
    truth: np.ndarray, model: np.ndarray, error: np.ndarray, context: int
) -> list[np.ndarray]:
    """[B, T, H, W, C] -> [B, T, H+4, W+4, 3]: adds borders, green in `context` first frames."""
    rows = []
    for video in (truth, model, error):
        batch, length, height, width, _ = video.shape
        shape = (batch, length, height + 2 * _BORDER, width + 2 * _BORDER, 3)
        framed = np.full(shape, _IMAGINED, np.uint8)
        framed[:, :context] = _CONTEXT
        # Grey ones fill three channels.
        framed[:, :, _BORDER:-_BORDER, _BORDER:-_BORDER] = newest_frame(video)
        rows.append(framed)
    return rows


def _coloured(frames: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the frames with three channels, and the factor of their enlargement."""
    scale = max(1, min(4, _SIDE // max(frames.shape[1:3])))
    return np.broadcast_to(frames, (*frames.shape[:3], 3)), scale
