"""What every family of attacks stands on: oracles, records, results, intervals."""
