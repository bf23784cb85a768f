"""What a run costs: memory, time and the machine it ran on."""
