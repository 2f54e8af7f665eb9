"""The claims about the service, each tried against a real one: name, bar, figure, holds."""
