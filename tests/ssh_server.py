"""An SSH server with SFTP on this machine, for the length of a test."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import asyncssh


class _Anyone(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


@contextlib.contextmanager
def ssh_server() -> Iterator[int]:
    """Its port; whoever connects may read and write what the test may."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait_for(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=30)

    async def listen() -> asyncssh.SSHAcceptor:
        key = asyncssh.generate_private_key("ssh-ed25519")
        options = {"server_factory": _Anyone, "server_host_keys": [key], "sftp_factory": True}
        return await asyncssh.listen("127.0.0.1", 0, **options)

    server = wait_for(listen())
    try:
        yield server.get_port()
    finally:
        server.close()
        wait_for(server.wait_closed())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
