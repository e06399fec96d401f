"""All measurements on an accelerator in one command, see `python -m benchmarks.campaign --help`.

campaign    runs the steps one after another, each in a process with a time limit
steps       the steps and their commands
summary     the report in Markdown
machine     step 1: the peaks of the machine
losses      step 2: the losses of 20 training steps, against those of a CPU
            step 3: `benchmarks.speed.train` and `benchmarks.speed.inference`
estimates   step 4: the planner's estimates against measurements
trace       step 5: where the time of 10 training steps goes
study       step 6 in the tiny form; otherwise `studies`
"""

import time

STARTED = time.monotonic()  # before the slow imports, which count towards --minutes
