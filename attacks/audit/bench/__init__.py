"""What an audit runs on: data, trained targets, cells and their saved state."""
