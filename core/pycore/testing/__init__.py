"""For authors of plugins: a host in memory, strategies for specs, pytest fixtures. Needs ``pycore-runtime[testing]``.

pytest_plugins = ["pycore.testing.fixtures"]

def test_my_operation(fake_kernel):
    MyOperation("/a").do(Context(fake_kernel))
    assert fake_kernel.exists("/a")
"""
