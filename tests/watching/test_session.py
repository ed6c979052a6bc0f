"""What a session on a real debug run tells: acting, dreams, checkpoints, failures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from whole_runs import DebugRuns

from dreamer.analysis.trained_run import load_run
from dreamer.errors import EnvError, UserError
from dreamer.watching.recorder import Recorder, write_recording
from dreamer.watching.scene import SIZE, Scene
from dreamer.watching.session import AHEAD, EVERY, Session
from dreamer.watching.side import Side


@pytest.fixture(scope="module")
def session(debug_runs: DebugRuns) -> Iterator[Session]:
    with load_run(debug_runs.path, num_envs=1, drawn=True) as loaded:
        yield Session([Side(loaded)], seed=3)


def kinds(messages: list) -> list[str]:
    return [header["kind"] for header, _ in messages]


def only(messages: list, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    (found,) = [message for message in messages if message[0]["kind"] == kind]
    return found


def test_acting_and_dreaming(session: Session):
    scene, messages = Scene(), session.start()
    assert kinds(messages) == ["state", "moment", "dream"]
    for message in messages:
        scene.take(message)
    header, arrays = only(messages, "moment")
    told = header["sides"][0]
    assert told["time"] == 0 and told["kl"] > 0 and {"value", "predicted"} <= told.keys()
    assert arrays["0/picture"].shape == arrays["0/model_picture"].shape == (64, 64, 3)
    first = arrays["0/action"]
    header, arrays = only(messages, "dream")
    assert arrays["0/picture"].shape == (1, AHEAD, 64, 64, 3)
    assert arrays["0/reward"].shape == arrays["0/value"].shape == (1, AHEAD)
    # The dream begins with the action that was taken.
    np.testing.assert_array_equal(arrays["0/action"][0, 0], first)
    for _ in range(EVERY):
        messages = session.tick()
        assert all(scene.take(message) for message in messages[:1])
    assert kinds(messages) == ["moment", "dream"]  # it runs ahead again from here
    assert scene.draw().shape == (SIZE[1], SIZE[0], 3)

    # Four samples; the truth beside them; by hand; and back to the truth.
    assert kinds(session.do({"do": "samples", "value": 4})) == ["state", "dream"]
    assert kinds(session.do({"do": "dream", "time": 5})) == ["state", "truth"]
    header, arrays = only(session.tick(), "dreamt")
    assert (header["time"], header["step"], header["sides"]) == (5, 1, [{"came": True}])
    assert arrays["0/picture"].shape == (4, 64, 64, 3)
    assert arrays["0/picture"].std(0).max() > 0  # the samples differ
    moment = session.sides[0].at(6)
    np.testing.assert_array_equal(arrays["0/truth"], moment.arrays["picture"])
    session.do({"do": "steer", "action": [7.0]})
    _, arrays = only(session.tick(), "dreamt")
    np.testing.assert_array_equal(arrays["0/action"], np.ones((4, 1)))  # within its bounds
    messages = session.do({"do": "truth"})
    assert only(messages, "truth")[0]["sides"][0]["time"] == 5
    for message in [*messages, *session.tick()]:
        scene.take(message)
    assert scene.draw().std() > 10
    messages = session.do({"do": "leave"})
    assert only(messages, "state")[0]["dreaming"] is None
    assert only(messages, "moment")[0]["sides"][0]["time"] == EVERY


def test_episodes_follow_from_their_seeds(session: Session):
    def pictures() -> np.ndarray:
        return np.stack([m.arrays["picture"] for m in session.sides[0].moments])

    session.do({"do": "episode", "seed": 3})
    session.do({"do": "play", "on": True})
    while session.wait() != 2.0:
        session.tick()
    first, moments = pictures(), session.sides[0].moments
    assert len(first) == 41 and moments[-1].is_last
    header, _ = only(session.snapshot(), "state")
    assert header["over"] and header["seed"] == 3
    history, arrays = only(session.snapshot(), "history")
    assert len(arrays["0/reward"]) == 41 and np.isfinite(arrays["0/kl"]).all()
    assert moments[-1].numbers["return"] == pytest.approx(arrays["0/reward"].sum(), rel=1e-5)
    session.tick()  # the next episode
    assert session.seed == 4 and not np.array_equal(pictures()[0], first[0])
    session.do({"do": "episode", "seed": 3})
    np.testing.assert_array_equal(pictures()[0], first[0])


def test_checkpoints_and_comparing(session: Session, monkeypatch: pytest.MonkeyPatch):
    side = session.sides[0]
    assert side.steps() == {"latest": 400, "best": side.steps()["best"], "400": 400, "240": 240}
    messages = session.do({"do": "checkpoint", "side": 0, "which": "240"})
    assert only(messages, "notice")[0]["text"] == "Now the agent of step 240 acts."
    assert only(messages, "state")[0]["sides"][0]["step"] == side.loaded.step == 240
    session.do({"do": "checkpoint", "side": 0, "which": "latest"})
    # A run that is still training: a newer checkpoint shows up, and the next episode uses it.
    session.state()
    assert session.look_for_checkpoints() == []
    steps = {**side.steps(), "latest": 500, "500": 500}
    monkeypatch.setattr(side, "steps", lambda: steps)
    assert kinds(session.look_for_checkpoints()) == ["state", "notice"]
    loaded = []
    monkeypatch.setattr(side, "load", loaded.append)
    session.do({"do": "episode"})
    assert loaded == ["latest"]


def test_wrong_commands_get_a_notice(session: Session):
    for command, text in [
        ({"do": "dance"}, "unknown command 'dance'"),
        ({}, "unknown command None"),
        ({"do": "speed", "value": 1000}, "1000 is none of"),
        ({"do": "samples", "value": "x"}, "is not understood"),
        ({"do": "episode", "seed": -1}, "a seed is a whole number"),
        ({"do": "checkpoint", "side": 0, "which": "/etc/passwd"}, "is none of latest, best"),
        ({"do": "steer", "action": [0, 0]}, "an action has 1 finite numbers"),
        ({"do": "steer", "action": [float("nan")]}, "finite numbers"),
        ({"do": "compare", "which": "best"}, "there is nothing to choose from"),
    ]:
        header, _ = session.do(command)[0]
        assert header["kind"] == "notice" and text in header["text"], command


def test_a_failed_environment_is_told_and_replaced(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    side = session.sides[0]
    error = EnvError(0, "raised", "step raised", "Traceback\nValueError: no such joint")
    monkeypatch.setattr(side.loaded.envs, "step", lambda *_: [error])
    session.do({"do": "episode", "seed": 1})
    header, _ = only(session.tick(), "state")
    assert header["failure"]["what"] == "The environment failed: ValueError: no such joint"
    assert session.wait() is None and session.tick() == []
    monkeypatch.undo()

    def give_up(*_: object) -> None:
        side.loaded.envs.close()
        raise error

    monkeypatch.setattr(side.loaded.envs, "reset", give_up)
    header, _ = only(session.do({"do": "episode"}), "state")
    assert header["failure"]
    messages = session.do({"do": "episode", "seed": 2})  # in environments that are opened anew
    assert kinds(messages) == ["state", "moment", "dream"] and session.failure is None
    assert kinds(session.tick()) == ["moment"]


def test_recordings(session: Session, tmp_path: Path):
    write_recording(session, tmp_path / "page.gif", 1)
    with Image.open(tmp_path / "page.gif") as clip:
        assert (clip.n_frames, clip.size) == (session.speed, SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["page.gif"]
    recorder = Recorder(most=3)
    for message in session.snapshot():
        recorder.take(message)
    with pytest.raises(UserError, match="must end in .gif or .mp4"):
        recorder.begin(".exe")
    recorder.begin(".gif")
    assert recorder.end() == "" and recorder.file is None
    recorder.begin(".gif")
    while not recorder.full:
        for message in session.tick():
            recorder.take(message)
    assert recorder.end() == "dream.gif" and not recorder.running
    assert recorder.file and recorder.file[1].startswith(b"GIF89a")
