"""Networks judged on labelled photographs: errors, intervals, tables and pictures."""
