"""What a network takes in memory: to train here, to train on many devices, to run; at each number format."""
