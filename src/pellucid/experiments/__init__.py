"""What trains many times: trying a range, probes; and the engine of the playground."""
