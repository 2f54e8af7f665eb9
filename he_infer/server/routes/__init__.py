"""What the server answers over HTTP: routes, request bodies, responses, metrics and pages."""
