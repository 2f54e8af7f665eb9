"""What an audit runs on: data, trained targets, trials and their saved state."""
