"""The first campaign on an accelerator: one command, all measurements. See `python -m benchmarks.campaign --help`.

campaign    the steps one after another, each a process with a time limit, and what is known of those that ended
steps       which steps there are, and their commands
summary     the summary as JSON and as Markdown
machine     step 1: the peaks of the machine
losses      step 2: the losses of 20 training steps, against those of a CPU
estimates   step 4: what the planner estimates, against what is measured; step 3 is `benchmarks.speed`
trace       step 5: where the time of 10 training steps goes
study       step 6, in the tiny form: the smallest study; otherwise the step is `studies`
"""

import time

STARTED = time.monotonic()  # before anything is imported that takes time
