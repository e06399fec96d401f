"""Plan a run on chips that are not there: compile its training step for them, and read what the compiler says."""
