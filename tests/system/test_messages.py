import socket
import threading

import numpy as np
import pytest

from dreamer.system import messages


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_arrays_arrive_as_they_were_sent(pair):
    arrays = {
        "image": np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)[:, ::-1],
        "scalar": np.asarray(0.1, np.float32),
        "flag": np.asarray(True),
        "empty": np.zeros((0, 4), np.float64),
    }
    messages.send(pair[0], {"kind": "timestep", "text": "ä\n"}, arrays)
    header, received = messages.receive(pair[1], 5.0)
    assert header == {"kind": "timestep", "text": "ä\n"}
    assert received.keys() == arrays.keys()
    for key, value in arrays.items():
        assert received[key].dtype == value.dtype and received[key].shape == value.shape
        np.testing.assert_array_equal(received[key], value)
    received["image"][:] = 0  # owned and writable


def test_message_larger_than_the_sockets_buffer(pair):
    big = np.random.default_rng(0).integers(0, 255, 5_000_000, dtype=np.uint8)
    sender = threading.Thread(target=messages.send, args=(pair[0], {}, {"big": big}))
    sender.start()
    np.testing.assert_array_equal(messages.receive(pair[1], 30.0)[1]["big"], big)
    sender.join()


def test_half_a_message_times_out(pair):
    pair[0].sendall(b"\x50\x00\x00\x00{")
    with pytest.raises(TimeoutError):
        messages.receive(pair[1], 0.05)


def test_closed_connection(pair):
    pair[0].close()
    with pytest.raises(ConnectionError):
        messages.receive(pair[1], 5.0)
    with pytest.raises(ConnectionError):
        messages.send(pair[1], {}, {"data": np.zeros(1 << 20)})


def test_objects_cannot_travel(pair):
    with pytest.raises(ValueError):
        messages.send(pair[0], {"kind": "x"}, {"o": np.array([object()])})
        messages.receive(pair[1], 5.0)
