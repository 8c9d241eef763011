"""Frames and descriptors between pycore's processes."""

from __future__ import annotations

import os
import threading

import pytest
from pycore.launch.channel import MAX_FRAME, Channel


@pytest.fixture
def ends():
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


def test_a_frame_arrives_whole_with_its_descriptors(ends) -> None:
    one, other = ends
    read_end, write_end = os.pipe()
    one.send({"launch": {"argv": ["é", "b"]}}, [write_end])
    os.close(write_end)
    message, (received,) = other.receive()
    assert message == {"launch": {"argv": ["é", "b"]}}
    assert not os.get_inheritable(received)
    os.write(received, b"through")
    os.close(received)
    assert os.read(read_end, 100) == b"through"
    os.close(read_end)


def test_frames_larger_than_a_socket_buffer_are_put_together(ends) -> None:
    one, other = ends
    text = "x" * (3 << 20)
    sender = threading.Thread(target=one.send, args=({"text": text},))
    sender.start()
    message, fds = other.receive()
    sender.join()
    assert (message, fds) == ({"text": text}, [])


def test_the_end_of_the_conversation_is_none(ends) -> None:
    one, other = ends
    one.send({"a": 1})
    one.close()
    assert other.receive() == ({"a": 1}, [])
    assert other.receive() is None


def test_an_end_inside_a_frame_is_none_too(ends) -> None:
    one, other = ends
    one.socket.sendall((100).to_bytes(4, "big") + b'{"half')
    one.close()
    assert other.receive() is None


@pytest.mark.parametrize("frame", [(MAX_FRAME + 1).to_bytes(4, "big"), b"\0\0\0\2[]", b"\0\0\0\1{"])
def test_what_is_no_frame_of_ours_is_refused_and_its_descriptors_closed(ends, frame: bytes) -> None:
    one, other = ends
    before = set(os.listdir("/proc/self/fd"))
    import array
    import socket

    one.socket.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
    with pytest.raises(ValueError, match=r"frame|Expecting"):
        other.receive()
    assert set(os.listdir("/proc/self/fd")) == before


def test_sending_to_nobody_is_a_broken_pipe(ends) -> None:
    one, other = ends
    other.close()
    with pytest.raises(BrokenPipeError):
        one.send({"a": 1})
