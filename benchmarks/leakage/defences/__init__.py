"""Training-time defences and detectors beside published figures."""
