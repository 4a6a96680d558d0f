"""The benchmark program: one table for each question of docs/BENCHMARKS.md, which says how to read them.

    make bench                                # everything, into the page
    python -m benchmarks --device cuda        # a bare host with torch and numpy is enough for the trainings

`turns` alternates candidates and keeps every sample, `limits` asks the hardware, `training`, `baselines` and
`preprocessing` are what is timed, `growth` repeats with more clips, `waits` and `explorers` are what people wait
for, `quality` compares end metrics of two precisions, `report` makes tables.
"""
