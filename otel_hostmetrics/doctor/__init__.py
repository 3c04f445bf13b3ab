"""``otel-hostmetrics doctor``: what every source finds here, and what would cure what is denied."""
