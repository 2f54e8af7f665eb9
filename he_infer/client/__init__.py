"""The client: keys, encryption, queries, and checks on what the server answers."""
