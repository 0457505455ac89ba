"""What a plan will cost, before anything runs: tokens, time, memory and disk, on this machine and on GPUs."""
