"""What the compiler writes and the server, the client and the runtime read."""
