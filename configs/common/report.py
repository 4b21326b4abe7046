"""report.html, which is written after every evaluation."""

report = dict(
    title="StreamPETR",
    # What a reader must know to judge the numbers, one paragraph each.
    notes=[],
    # True evaluates a second time with the temporal memory off, to compare. Takes twice as long.
    memory_off=False,
    # Half the width of the views from above.
    range_m=51.2,
)
