"""Options, plan, loop, optimisers, schedules, journal, verdict: everything that turns data into a trained network."""
