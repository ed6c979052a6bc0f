"""The page's server as a process, a real web socket, and the mistakes that get one line."""

import importlib.util
import json
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_runs import DebugRuns, finish, start

from dreamer.errors import UserError
from dreamer.watch import NEEDED, check_browser, main

missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
served = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def link(debug_runs: DebugRuns) -> Iterator[str]:
    process = start("dreamer.watch", "--run", debug_runs.path, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    found = re.match(r"open (http://127\.0\.0\.1:\d+/[\w-]{20,}/) in a", process.stdout.readline())
    assert found
    yield found[1]
    process.terminate()
    finish(process, 60)


def status(url: str, **headers: str) -> int:
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=300) as response:
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@served
def test_only_the_link_opens_the_page(link: str):
    host = link.rpartition("/")[0].rpartition("/")[0]
    for path in ("", "watch.js", "watch.css"):
        assert status(link + path) == 200
        with urllib.request.urlopen(link + path, timeout=300) as response:
            text = response.read().decode()
        assert not re.search(r"https?://|//cdn", text)  # nothing comes from other hosts
    assert status(f"{link}recording") == status(f"{link}../other") == status(f"{link}x.py") == 404
    for url in (f"{host}/", f"{host}/wrong/", f"{host}/watch.js", f"{host}/%2e%2e/"):
        assert status(url) == 403
    assert status(link, Host="evil.example") == status(link, Origin="http://evil.example") == 403
    place = host.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", int(place.rpartition(":")[2]))) as sock:
        sock.sendall(f"OPTIONS * HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 403 ")


@served
def test_a_web_socket_shows_and_controls(link: str):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    url, origin = f"{link}socket".replace("http", "ws", 1), "/".join(link.split("/")[:3])
    for wrong in ({"origin": "http://evil.example"}, {}):
        with pytest.raises(InvalidStatus, match="403"):
            connect(url, **wrong)
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"{origin}/wrong/socket".replace("http", "ws", 1), origin=origin)
    with connect(url, origin=origin, max_size=1 << 24) as one:

        def header(of=one) -> dict:
            message = of.recv(timeout=300)
            return json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])

        def until(kind: str, of=one, **wanted: object) -> dict:
            while (found := header(of)) != {**found, "kind": kind, **wanted}:
                pass
            return found

        assert header()["kind"] == "state"
        assert until("moment")["sides"][0]["time"] >= 0
        until("dream")
        one.send("no JSON")
        one.send(json.dumps({"do": "play", "on": False}))
        until("state", playing=False)
        # A second tab sees the same, and what the first one does.
        with connect(url, origin=origin, max_size=1 << 24) as two:
            assert header(two)["playing"] is False
            one.send(json.dumps({"do": "dream", "time": 0}))
            for tab in (one, two):
                assert until("state", tab, dreaming=0)["by_hand"] is None
            one.send(json.dumps({"do": "step"}))
            assert until("dreamt", two)["step"] == 1
        one.send(json.dumps({"do": "leave"}))
        until("moment")


def test_mistakes_get_one_line(
    debug_runs: DebugRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = str(debug_runs.path)
    for words, message in [
        ([], "--run is missing"),
        (["--run", str(tmp_path)], "is not a run's directory"),
        (["--run", run, "--checkpoint", "7"], "has no checkpoint of step 7"),
        (["--run", run, "--port", "70000"], "at most 65535"),
        (["--run", run, "--seed", str(2**32)], "at most 4294967295"),
        (["--run", run, "--compare", "pretrained:cart"], "did you mean 'pretrained:cartpole'"),
        (["--run", run, "--record", "page.txt"], "must end in .gif or .mp4"),
        (["--run", run, "--record", str(tmp_path / "none" / "page.gif")], "none"),
        (["--run", run, "--seconds", "0"], "at least 1"),
    ]:
        if missing and "--record" not in words and "at " not in message and words:
            continue
        with pytest.raises(UserError) as error:
            main(words)
        assert message in str(error.value), words
    monkeypatch.setattr("webbrowser.get", lambda: (_ for _ in ()).throw(webbrowser_error()))
    with pytest.raises(UserError, match="no browser was found .* leave --open out"):
        check_browser()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs starlette, uvicorn, websockets: run pip install"):
        main(["--run", run])


def webbrowser_error() -> Exception:
    import webbrowser

    return webbrowser.Error("could not locate runnable browser")


@served
def test_a_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be used .* choose another --port"):
            main(["--run", "anything", "--port", str(taken.getsockname()[1])])
