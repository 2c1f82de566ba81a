"""What the end-to-end tests stand on: the gateway under test, a Redis, vendors, raw sockets."""
