"""The benchmark program: training and preprocessing against baselines and against the hardware, in one run.

    make bench
    python -m benchmarks --device cuda        # a bare host with torch and numpy is enough for the trainings

`turns` alternates candidates and keeps every sample, `limits` asks the hardware, `training`, `baselines` and
`preprocessing` are what is timed, `memory` measures peaks, `quality` compares end metrics of two precisions, `report`
shows it. docs/BENCHMARKS.md says how to read the figures.
"""
