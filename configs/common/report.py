"""report.html, which is written after every evaluation."""

report = dict(
    title="StreamPETR",
    # What a reader must know to judge the numbers, one paragraph each.
    notes=[],
    # Evaluate once more with the temporal memory off, to stand beside it. Takes as long again.
    memory_off=False,
    # Half the width of the views from above.
    range_m=51.2,
)
