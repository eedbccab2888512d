"""A proxy into a tunnel: SOCKS5, HTTP and fixed forwards, over any two networks with sockets."""
