"""The benchmark program: training and preprocessing against rivals and against the hardware, in one run.

    make bench
    python -m vaelib.bench --device cuda        # a bare host with torch and numpy is enough for the trainings

`race` alternates contestants and keeps every sample, `limits` asks the hardware, `training`, `rivals` and
`preprocessing` are what is timed, `memory` measures peaks, `quality` compares end metrics of two precisions, `report`
and `picture` show it. docs/BENCHMARKS.md says how to read the figures.
"""
