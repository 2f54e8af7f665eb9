"""What a defender can do: filters before training or before a query, training, smoothing."""
