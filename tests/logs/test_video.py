"""Videos keep their pixels, speed and length; strips align truth, model and error."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from dreamer.errors import UserError
from dreamer.logs.video import encode_gif, open_loop_strip, open_loop_video, tile, write_video


def moving(length, height=16, width=16):
    """uint8 [T, H, W, 3]: a column of light that moves by one pixel a frame."""
    frames = np.zeros((length, height, width, 3), np.uint8)
    for time in range(length):
        frames[time, :, time % width] = (255, 128, 64)
    return frames


def enlarge(frames, scale):
    """[T, H, W, C] -> [T, scale*H, scale*W, C]."""
    return frames.repeat(scale, axis=1).repeat(scale, axis=2)


def read_gif(path):
    with Image.open(path) as image:
        pages = [
            (np.asarray(page.convert("RGB")), page.info["duration"])
            for page in ImageSequence.Iterator(image)
        ]
        frames, durations = zip(*pages, strict=True)
        return np.stack(frames), list(durations), image.info.get("loop")


def test_a_gif_holds_the_frames_enlarged_and_repeats(tmp_path):
    write_video(tmp_path / "video.gif", moving(10), fps=20)
    frames, durations, loop = read_gif(tmp_path / "video.gif")
    assert np.array_equal(frames, enlarge(moving(10), 4))
    assert durations == [50] * 10 and loop == 0


@pytest.mark.parametrize("fps", [7, 15, 24, 30, 40, 50, 150])
def test_a_gifs_speed_is_right_over_its_whole_length(tmp_path, fps):
    write_video(tmp_path / "video.gif", moving(300), fps)
    frames, durations, _ = read_gif(tmp_path / "video.gif")
    assert len(frames) == (100 if fps > 50 else 300)  # browsers play faster GIFs slowly
    assert sum(durations) == pytest.approx(300 / fps * 1000, abs=10)
    assert min(durations) >= 20


@pytest.mark.parametrize(("size", "scale"), [(16, 4), (64, 4), (200, 3), (400, 1), (1000, 1)])
def test_small_frames_are_enlarged(size, scale):
    gif = encode_gif(np.zeros((1, size, size // 2, 3), np.uint8), fps=10)
    assert int.from_bytes(gif[6:8], "little") == size // 2 * scale


def test_gradients_and_small_things_keep_their_colours(tmp_path):
    ramp = np.linspace(0, 255, 64)
    sky = np.broadcast_to(ramp[:, None, None] * [0.2, 0.5, 0.9], (20, 64, 64, 3)).astype(np.uint8)
    video = np.maximum(sky, moving(20, 64, 64) // 4)
    video[10:, 50:52, 50:52] = (255, 0, 0)
    write_video(tmp_path / "video.gif", video, fps=10)
    frames, _, _ = read_gif(tmp_path / "video.gif")
    error = np.abs(frames[:, ::4, ::4].astype(int) - video)
    assert error.mean() < 2 and error[10:, 50:52, 50:52].max() < 16


def test_grey_frames_make_videos_too(tmp_path):
    write_video(tmp_path / "video.gif", moving(3)[..., :1], fps=10)
    frames, _, _ = read_gif(tmp_path / "video.gif")
    assert np.array_equal(frames, np.repeat(enlarge(moving(3)[..., :1], 4), 3, -1))


@pytest.mark.parametrize(("size", "scale"), [((16, 16), 4), ((201, 203), 3)])
def test_an_mp4_holds_the_frames_at_their_speed(tmp_path, size, scale):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    truth = np.repeat(moving(30, *size), 2, axis=0)
    write_video(tmp_path / "video.mp4", truth, fps=30)
    pages = imageio_ffmpeg.read_frames(str(tmp_path / "video.mp4"))
    about = next(pages)
    width, height = about["source_size"]
    assert (height, width) == tuple(side * scale + side * scale % 2 for side in size)
    assert about["fps"] == 30
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in pages]
    assert len(frames) == 60
    expected = enlarge(truth, scale)[25].astype(float)
    assert np.abs(frames[25][: expected.shape[0], : expected.shape[1]] - expected).mean() < 15
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_without_ffmpeg_the_pip_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"video.mp4: .*'pip install imageio-ffmpeg'"):
        write_video(tmp_path / "video.mp4", moving(2), 10)
    assert not list(tmp_path.iterdir())


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match=r"must end in .gif or .mp4"):
        write_video(tmp_path / "video.avi", moving(2), 10)
    with pytest.raises(UserError, match="No such file"):
        write_video(tmp_path / "absent" / "video.gif", moving(2), 10)


def test_tiles_stand_in_rows_and_short_ones_stand_still():
    videos = [np.full((length, 2, 3, 3), length, np.uint8) for length in (1, 2, 3)]
    tiled = tile(videos)
    assert tiled.shape == (3, 4, 6, 3)
    assert (tiled[:, :2, :3] == 1).all() and (tiled[:, :2, 3:] == 2).all()
    assert (tiled[:, 2:, :3] == 3).all() and (tiled[:, 2:, 3:] == 0).all()


def three(batch=2, length=7):
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (batch, length, 8, 8, 3), np.uint8) for _ in range(3)]


def test_open_loop_videos_stack_truth_model_and_error():
    rows = three()
    video = open_loop_video(*rows, context=5)
    assert video.shape == (7, 3 * 12, 2 * 12, 3)
    for row, videos in enumerate(rows):
        for column in range(2):
            inner = video[:, row * 12 + 2 : row * 12 + 10, column * 12 + 2 : column * 12 + 10]
            assert np.array_equal(inner, videos[column])
    border = video[:, 0, 0].tolist()
    assert border[:5] == [border[0]] * 5 and border[5:] == [border[5]] * 2
    assert border[0] != border[5]


def test_open_loop_strips_run_to_the_right():
    truth, model, error = (videos[0] for videos in three())
    strip = open_loop_strip(truth, model, error, context=5, every=3)
    assert strip.shape == (3 * 12, 3 * 12, 3)
    assert np.array_equal(strip[2:10, 26:34], truth[6])
    assert np.array_equal(strip[14:22, 14:22], model[3])
    assert strip[0, 0].tolist() == strip[0, 13].tolist() != strip[0, 25].tolist()
