"""What a defender can do: filter records, train or smooth a model, disguise its answers."""
